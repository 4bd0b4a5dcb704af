"""Whoever answers about the items of a benchmark: a module each."""
