"""Sharded-training engines behind the policy worker."""
