"""Carrying the policy's weights to the rollout engines, with digests on both ends."""
