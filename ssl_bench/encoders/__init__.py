"""Networks with named layers, their starting weights and their files."""
