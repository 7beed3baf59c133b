"""Run the command line as a module: python -m bluesky_jit.cli."""

from bluesky_jit.cli.main import main

main()
