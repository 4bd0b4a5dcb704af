"""Online learning: prompts to rollouts to advantages to updates, step by step, and the cold start before it."""
