"""Held-out evaluation during training, and the benchmarks."""
