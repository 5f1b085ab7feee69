"""Images: datasets name them, the store keeps them decoded."""
