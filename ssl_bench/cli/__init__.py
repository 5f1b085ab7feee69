"""The `bench` command."""

from ssl_bench.cli.main import cli, main

__all__ = ["cli", "main"]
