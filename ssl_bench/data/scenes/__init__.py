"""The embedded set of drawn scenes."""
