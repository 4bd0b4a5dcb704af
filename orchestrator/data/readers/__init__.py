"""Readers of people's preference files: each a function from one decoded row to a draft, declared by name."""
