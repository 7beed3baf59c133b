"""The RunEngine, and a table of each run."""

from bluesky import RunEngine

from bluesky_jit.beamline.console import subscribe_table

RE = RunEngine({})
subscribe_table(RE)
