"""Make the counts that a detector gives uint16, and say of each frame that cannot be why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bluesky_jit.messages import FrameKind

MOST_COUNTS = int(np.iinfo(np.uint16).max)
"""What the window keeps of raw data."""
LEAST_RAW = 2.0
"""Real numbers that all lie below this, and are not whole, are transmissions, noise included: no detector's counts."""


class UnusableCounts(ValueError):
    """Say what is wrong with the counts of frames; `reason` is the same for all frames with the same fault."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Hold frames as counts.

    counts: uint16 (n, n_v, n_u), zeros where a frame is not usable; usable: bool (n,); faults: what is wrong with the
    others, one of each kind.
    """

    counts: np.ndarray
    usable: np.ndarray
    faults: tuple[UnusableCounts, ...] = ()


def as_counts(frames: np.ndarray, kind: FrameKind = "projection") -> np.ndarray:
    """Return frames (n, n_v, n_u) as uint16, rounded; raise UnusableCounts for what would not survive that."""
    counted = counted_frames(frames, kind)
    if counted.faults:
        raise counted.faults[0]
    return counted.counts


def counted_frames(frames: np.ndarray, kind: FrameKind = "projection") -> Counted:
    """Take frames (n, n_v, n_u) of any type as uint16, rounded, frame by frame."""
    n = len(frames)
    if frames.dtype == np.uint16:
        return Counted(counts=frames, usable=np.ones(n, dtype=bool))
    if frames.dtype.kind not in "buif":
        fault = UnusableCounts("type", f"frames are of type {frames.dtype}: let the detector write integer counts")
        return Counted(counts=np.zeros(frames.shape, np.uint16), usable=np.zeros(n, dtype=bool), faults=(fault,))
    if not frames.size:
        return Counted(counts=frames.astype(np.uint16), usable=np.ones(n, dtype=bool))
    is_real = frames.dtype.kind == "f"
    usable, faults = np.ones(n, dtype=bool), []
    tests: list[tuple[str, Callable[[np.ndarray], np.ndarray], str]] = [
        ("negative", lambda values: values >= 0, "let the detector write raw counts, and not subtract darks"),
        (
            "too large",
            lambda values: values <= MOST_COUNTS,
            f"let the detector scale its counts to at most {MOST_COUNTS}",
        ),
    ]
    if is_real:
        tests.insert(0, ("not finite", lambda values: np.isfinite(values), "let the detector write raw counts"))
    for reason, test, remedy in tests:
        fits = test(frames)
        spoilt = usable & ~fits.all(axis=(1, 2))
        if spoilt.any():
            faults.append(_fault(reason, fits[spoilt][0], frames[spoilt][0], remedy))
            usable &= ~spoilt
    if is_real and kind != "dark":
        for index in np.flatnonzero(usable):
            if frames[index].max() < LEAST_RAW and (frames[index] != np.rint(frames[index])).any():
                usable[index] = False
                if not any(fault.reason == "normalised" for fault in faults):
                    faults.append(_normalised(float(frames[index].max())))
    counts = np.zeros(frames.shape, dtype=np.uint16)
    counts[usable] = np.rint(frames[usable]) if is_real else frames[usable]
    return Counted(counts=counts, usable=usable, faults=tuple(faults))


def _normalised(largest: float) -> UnusableCounts:
    return UnusableCounts(
        "normalised",
        f"frames hold fractions of up to {largest:.3g}, as if flats had been applied: they were left out; let the "
        "detector write raw counts",
    )


def _fault(reason: str, fits: np.ndarray, frame: np.ndarray, remedy: str) -> UnusableCounts:
    """Name the first count of a frame (n_v, n_u) that does not fit."""
    row, column = np.argwhere(~fits)[0]
    return UnusableCounts(
        reason,
        f"a frame holds {frame[row, column]} counts at row {row}, column {column} ({reason}): it was left out, and so "
        f"are all frames like it; {remedy}",
    )
