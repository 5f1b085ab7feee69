"""Encoder to record: the contracts of what measures, and what carries them out."""
