"""The canonical store of preference data: instructions and responses in Parquet, pairs as a view over them."""
