"""Readers of people's files, each declared by name."""
