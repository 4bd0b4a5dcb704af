"""Generation engines behind one Protocol."""
