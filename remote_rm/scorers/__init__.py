"""What a response earns: format, accuracy, consistency, and how the three combine. Pure functions of text."""
