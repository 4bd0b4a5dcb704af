"""Metrics of public benchmarks: pure functions from what was read in the responses to figures."""
