"""Pure tensor functions for RL and preference learning; imports torch and jaxtyping only."""
