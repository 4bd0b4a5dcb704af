"""Evaluation kits of others, run on a model of ours from environments of their own; their results in our tables."""
