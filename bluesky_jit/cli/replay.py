"""`bluesky-jit replay`: play a stored scan to a running `bluesky-jit serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.progress import track

from bluesky_jit.intake.replay import replay
from bluesky_jit.intake.setup import tomo_block
from bluesky_jit.intake.sources import StoredScan, open_scan
from bluesky_jit.intake.wire import DocumentPublisher
from bluesky_jit.settings import Settings

LISTENER_S = 5.0


def replay_file(path: Path, settings: Settings, *, rate_hz: float, turns: int) -> None:
    """Publish a stored scan's documents at a rate in projections a second."""
    scan = open_scan(path)
    publisher = DocumentPublisher(settings.serve.publish_address, curve_folder=settings.serve.curve_folder)
    try:
        if not publisher.wait_for_listener(LISTENER_S):
            raise RuntimeError(
                f"nobody listens at {settings.serve.publish_address}: start `bluesky-jit serve` with the same settings"
            )
        bar = iter(track(range(_documents(scan, turns)), description=f"{scan.layout} {path.name}"))

        def emit(name: str, document: dict[str, Any]) -> None:
            publisher(name, document)
            if name == "event":
                next(bar)

        replay(scan, emit, tomo=tomo_block(settings.geometry), rate_hz=rate_hz, turns=turns)
        next(bar, None)
    finally:
        publisher.close()


def _documents(scan: StoredScan, turns: int) -> int:
    blanks = sum(len(rows) for kind, (_, rows) in scan.rows.items() if kind != "projection")
    return blanks + turns * scan.n_projections
