"""Somebody's own question and some responses, put to a model as those of a benchmark are."""
