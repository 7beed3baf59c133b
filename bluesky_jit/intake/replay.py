"""Play a stored scan back as the documents of a run, at a given rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from event_model import compose_run

from bluesky_jit.intake.sources import StoredScan
from bluesky_jit.messages import FrameKind

STREAMS: dict[FrameKind, str] = {"dark": "darks", "flat": "flats", "projection": "primary"}
IMAGE, ANGLE = "replay_image", "replay_angle"


def replay(
    scan: StoredScan,
    emit: Callable[[str, Any], None],
    *,
    tomo: dict[str, Any],
    rate_hz: float | None = None,
    turns: int = 1,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Emit a scan's documents, one frame an event, and return the run's uid.

    tomo: the run's metadata block (geometry); rate_hz: projections in a second, None as fast as they are taken; turns:
    how often the projections are played, for a sample that turns on. Darks and flats come once, where they were taken
    in the first turn. Angles and the angles a turn are the scan's.
    """
    metadata = {
        "plan_name": "replay",
        "scan_id": 0,
        "replayed_from": scan.path.name,
        "tomo": {**tomo, "angle_key": ANGLE, "n_angles_per_rotation": angles_per_turn(scan.angles_rad)},
    }
    run = compose_run(time=clock(), metadata=metadata)
    emit("start", run.start_doc)
    descriptors: dict[FrameKind, Any] = {}
    played = 0
    due = clock()
    for turn in range(turns):
        for block in scan.blocks_as_taken():
            if turn > 0 and block.kind != "projection":
                continue
            if block.kind not in descriptors:
                descriptors[block.kind] = run.compose_descriptor(name=STREAMS[block.kind], data_keys=_data_keys(scan))
                emit("descriptor", descriptors[block.kind].descriptor_doc)
            for counts, angle_rad in zip(block.counts, block.angles_rad, strict=True):
                if rate_hz and block.kind == "projection":
                    due = max(due + 1 / rate_hz, clock() - 1.0)
                    sleep(max(0.0, due - clock()))
                data = {IMAGE: counts, ANGLE: 0.0 if np.isnan(angle_rad) else float(np.rad2deg(angle_rad))}
                now = clock()
                event = descriptors[block.kind].compose_event(data=data, timestamps=dict.fromkeys(data, now), time=now)
                emit("event", event)
                played += block.kind == "projection"
    emit("stop", run.compose_stop(time=clock()))
    return str(run.start_doc["uid"])


def angles_per_turn(angles_rad: np.ndarray) -> int:
    """Return how many projections of this spacing make a turn."""
    if len(angles_rad) < 2:
        raise ValueError(f"the scan has {len(angles_rad)} projections: at least two are needed to know their spacing")
    step_rad = float(np.median(np.abs(np.diff(angles_rad))))
    if step_rad == 0:
        raise ValueError("the scan's angles do not change: it cannot be reconstructed")
    return max(2, round(2 * np.pi / step_rad))


def _data_keys(scan: StoredScan) -> dict[str, Any]:
    source = f"file:{scan.path.name}"
    return {
        IMAGE: {"source": source, "dtype": "array", "dtype_numpy": "<u2", "shape": list(scan.frame_shape)},
        ANGLE: {"source": source, "dtype": "number", "dtype_numpy": "<f8", "shape": [], "units": "deg"},
    }
