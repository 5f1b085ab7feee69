"""Numbers of predictions."""
