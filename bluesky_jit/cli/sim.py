"""`bluesky-jit sim`: a simulated beamline for use from a console."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from shlex import quote
from typing import Any

from rich.console import Console

from bluesky_jit.cli.processes import INTERRUPTS
from bluesky_jit.cli.simulated import SimulatedBeamline, require_sim_devices

WATCH_S = 1.0


def sim(directory: Path, ioc_options: tuple[str, ...]) -> None:
    """Run IOCs and Tiled until interrupted."""
    require_sim_devices()
    console = Console()
    ended = threading.Event()
    starting = True

    def end(*_: Any) -> None:
        first = not ended.is_set()
        ended.set()
        # Nothing is cut short but the start, and that once: what ends it is not.
        if starting and first:
            raise KeyboardInterrupt

    for number in INTERRUPTS:
        signal.signal(number, end)
    beamline = SimulatedBeamline(directory, ioc_options=ioc_options)
    try:
        with console.status("starting IOCs and Tiled"):
            beamline.__enter__()
        starting = False
        settings = beamline.settings
        # Lines to paste: as they are, however narrow the terminal.
        lines = (
            f"camera {settings.beamline.camera}  stage {settings.beamline.stage}  CA port {settings.beamline.ca_port}",
            f"Tiled  {settings.tiled.uri}   (key in {beamline.settings_file})",
            "",
            "In other terminals, in a checkout of bluesky_jit (ipython needs its profile_collection):",
            f"export BLUESKY_JIT_SETTINGS={quote(str(beamline.settings_file))}",
            "bluesky-jit serve",
            "ipython --profile-dir=profile_collection",
            "",
            "Ctrl-C ends it.",
        )
        console.print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)
        while not ended.wait(WATCH_S):
            for child in beamline.lost():
                raise RuntimeError(f"{child.name} has ended: see {child.log}\n{child.tail()}")
    finally:
        beamline.stop()
        if not starting:
            # Nobody shall look for what is gone.
            beamline.settings_file.unlink(missing_ok=True)
