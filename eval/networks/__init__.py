"""Networks that evaluations train, and the geometry of their maps."""
