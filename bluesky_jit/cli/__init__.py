"""The command line: bluesky-jit demo | sim | serve | replay | bench."""

from bluesky_jit.cli.main import main

__all__ = ["main"]
