"""The driver: configuration, placement, the training loops and everything a person sees."""
