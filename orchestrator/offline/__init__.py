"""Learning from a preference store, without rollouts: from instructions to optimizer steps on the same worker pool."""
