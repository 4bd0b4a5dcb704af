"""Rewards that are plain functions, built in or a user's, each call in a process that can be ended."""
