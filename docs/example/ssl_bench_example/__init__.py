"""A third party's package for ssl-bench: see docs/extend.md there."""
