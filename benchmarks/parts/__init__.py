"""Parts of the benchmark scripts; not installed."""
