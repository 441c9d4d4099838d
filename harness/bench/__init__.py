"""Benchmarks: one module per claim of speed, with ratios measured in one run."""
