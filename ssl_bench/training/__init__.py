"""Images to encoder: the contract of a pretext and the one training loop."""
