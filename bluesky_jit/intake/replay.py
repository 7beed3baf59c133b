"""Play a stored scan back as the documents of a live run: as fast as they are taken, at a given rate or as recorded."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol

import numpy as np
from event_model import compose_run

from bluesky_jit.intake.stored_scan import Told
from bluesky_jit.messages import FrameKind, ProjectionBlock

logger = logging.getLogger(__name__)

Rate = float | Literal["real", "full"]
"""Projections in a second, or as the scan's time stamps say, or as fast as they are taken."""

STREAMS: dict[FrameKind, str] = {"dark": "darks", "flat": "flats", "projection": "primary"}
IMAGE, ANGLE, NUMBER = "replay_image", "replay_angle", "replay_unique_id"
BEHIND_S = 1.0
"""What is late by more is not made up for: a burst is no rate."""
STEEP_RAD = math.pi / 2
"""No stage turns on by more between two projections of a scan in order."""
GAP = 4.0
"""Golden angles lie apart by steps that differ by a factor of 2.6 at most; what is wider was not measured."""
BACKWARDS = 0.01
"""Part of the steps that an encoder's noise may turn round; more of them and the angles are in no order."""


class Playable(Protocol):
    """Give a stored scan's frames in the order they were taken: a file, a folder, or a run in Tiled."""

    @property
    def name(self) -> str: ...

    @property
    def tomo(self) -> Mapping[str, Any]: ...

    @property
    def frame_shape(self) -> tuple[int, int]: ...

    @property
    def angles_rad(self) -> np.ndarray: ...

    @property
    def times_s(self) -> np.ndarray: ...

    @property
    def n_taken(self) -> int: ...

    def blocks_as_taken(self, *, told: Told | None = None) -> Iterator[ProjectionBlock]: ...


def replay(
    scan: Playable,
    emit: Callable[[str, Any], None],
    *,
    tomo: Mapping[str, Any],
    rate: Rate = "full",
    turns: int = 1,
    uid: str | None = None,
    told: Told = logger.warning,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Emit a scan's documents, one frame an event, and return the run's uid.

    tomo: the run's metadata block (geometry), to which the order of the angles and how many make a turn are added;
    turns: how often the projections are played, for a sample that turns on, while darks and flats come once, where they
    were taken in the first turn; uid: of the run, by default a new one; told: of each frame that cannot be read and is
    left out. `emit` may keep the caller waiting, and so sets the pace of "full". Raises ValueError for a scan that
    cannot be played so, before anything is emitted.
    """
    order = {key: tomo.get(key) or value for key, value in order_of(scan.angles_rad).items()}
    pace = Pace(_due_s(scan, rate), clock=clock, sleep=sleep)
    run = compose_run(
        uid=uid,
        time=clock(),
        metadata={
            "plan_name": "replay",
            "scan_id": 0,
            "replayed_from": scan.name,
            "num_points": turns * scan.n_taken,
            "tomo": {**tomo, **order, "image_key": IMAGE, "angle_key": ANGLE},
        },
    )
    emit("start", run.start_doc)
    try:
        for name, document in _frames(scan, run, turns, pace, told, clock):
            emit(name, document)
    except BaseException as error:
        status = "abort" if isinstance(error, KeyboardInterrupt) else "fail"
        emit("stop", run.compose_stop(exit_status=status, reason=str(error) or type(error).__name__, time=clock()))
        raise
    emit("stop", run.compose_stop(time=clock()))
    return str(run.start_doc["uid"])


def _frames(
    scan: Playable, run: Any, turns: int, pace: Pace, told: Told, clock: Callable[[], float]
) -> Iterator[tuple[str, Any]]:
    """Yield descriptors and events."""
    descriptors: dict[FrameKind, Any] = {}
    for turn in range(turns):
        for block in scan.blocks_as_taken(told=told):
            if turn > 0 and block.kind != "projection":
                continue
            if block.kind not in descriptors:
                keys = _data_keys(scan)
                descriptors[block.kind] = run.compose_descriptor(name=STREAMS[block.kind], data_keys=keys)
                yield "descriptor", descriptors[block.kind].descriptor_doc
            frames = zip(block.counts, block.angles_rad, block.acquisition, block.unique_ids, strict=True)
            for counts, angle_rad, place, number in frames:
                if block.kind == "projection":
                    pace.wait(turn, int(place))
                data = {
                    IMAGE: counts,
                    ANGLE: 0.0 if np.isnan(angle_rad) else float(np.rad2deg(angle_rad)),
                    NUMBER: turn * scan.n_taken + int(number),
                }
                now = clock()
                stamps = dict.fromkeys(data, now)
                yield "event", descriptors[block.kind].compose_event(data=data, timestamps=stamps, time=now)


class Pace:
    """Wait until a projection is due."""

    def __init__(self, due_s: np.ndarray | None, *, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        """Begin; due_s: when each projection of a turn is due, counted from its first one, and at last (n + 1,) when
        the next turn's first one is; None: at once.
        """
        self._due_s = due_s
        self._clock, self._sleep = clock, sleep
        self._origin_s: float | None = None

    def wait(self, turn: int, projection: int) -> None:
        if self._due_s is None:
            return
        if self._origin_s is None:
            self._origin_s = self._clock()
        due_s = self._origin_s + float(turn * self._due_s[-1] + self._due_s[projection])
        late_s = self._clock() - due_s
        if late_s > BEHIND_S:
            self._origin_s += late_s - BEHIND_S
        elif late_s < 0:
            self._sleep(-late_s)


def _due_s(scan: Playable, rate: Rate) -> np.ndarray | None:
    """Return what `Pace` takes; raise ValueError when the scan does not record when its projections were taken."""
    if rate == "full":
        return None
    n = len(scan.angles_rad)
    if rate != "real":
        return np.arange(n + 1) / rate
    times_s = scan.times_s
    if len(times_s) != n or n < 2 or not (np.isfinite(times_s).all() and (np.diff(times_s) >= 0).all()):
        raise ValueError(
            f"{scan.name} does not record when its projections were taken: give a rate in projections a second instead "
            "of 'real', or 'full'"
        )
    return np.append(times_s, times_s[-1] + np.median(np.diff(times_s))) - times_s[0]


def order_of(angles_rad: np.ndarray) -> dict[str, Any]:
    """Return what a run says of the order of its angles: its scan mode and how many projections make a turn."""
    if len(angles_rad) < 2:
        raise ValueError(f"the scan has {len(angles_rad)} projections: at least two are needed to know their spacing")
    # An angle may begin again at each turn.
    steps = (np.diff(angles_rad) + np.pi) % (2 * np.pi) - np.pi
    typical = float(np.median(steps))
    in_order = abs(typical) < STEEP_RAD and np.mean(steps * np.sign(typical) < 0) <= BACKWARDS
    if not in_order:
        # All of one arc sooner or later: the mean of what lies next to each other then, but for the rest of the turn.
        steps = np.diff(np.unique(np.round(angles_rad % (2 * np.pi), 6)))
        steps = np.array([steps[steps <= GAP * np.median(steps)].mean()]) if len(steps) else steps
    step_rad = float(np.median(np.abs(steps))) if len(steps) else 0.0
    if step_rad == 0:
        raise ValueError("the scan's angles do not change: it cannot be reconstructed")
    return {
        "scan_mode": "sequential" if in_order else "interlaced",
        "n_angles_per_rotation": max(2, round(2 * np.pi / step_rad)),
    }


def _data_keys(scan: Playable) -> dict[str, Any]:
    source = f"replay:{scan.name}"
    return {
        IMAGE: {"source": source, "dtype": "array", "dtype_numpy": "<u2", "shape": list(scan.frame_shape)},
        ANGLE: {"source": source, "dtype": "number", "dtype_numpy": "<f8", "shape": [], "units": "deg"},
        NUMBER: {"source": source, "dtype": "integer", "dtype_numpy": "<i8", "shape": []},
    }
