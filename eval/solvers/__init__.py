"""Solvers for many linear problems at once."""
