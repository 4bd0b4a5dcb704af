"""Critiques and rewards of a frozen critique reward model, for whoever asks: margins, benchmarks, online rewards."""
