"""ssl-bench: a benchmark for self-supervised visual features."""
