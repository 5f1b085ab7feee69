"""Every number with all that made it, and the workspace that holds them."""
