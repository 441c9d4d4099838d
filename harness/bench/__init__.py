"""One module per claim of speed, printing ratios measured in one run."""
