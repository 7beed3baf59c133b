"""Carry one exposure from the camera to the plugins."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

EPICS_EPOCH_S = 631152000
"""1990-01-01 in seconds since the Unix epoch: what areaDetector counts its time stamps from."""


class FrameType(IntEnum):
    """Name what was in the beam, numbered as in tomoscan."""

    DARK = 0
    FLAT = 1
    PROJECTION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Hold counts uint16 (n_v, n_u), taken around `time_s` (middle of the exposure, Unix epoch) at `angle_deg`."""

    counts: np.ndarray
    unique_id: int
    time_s: float
    angle_deg: float
    frame_type: FrameType
    phantom_time_s: float

    @property
    def epics_time(self) -> tuple[int, int]:
        """Return seconds and nanoseconds since the EPICS epoch."""
        seconds, fraction = divmod(self.time_s, 1.0)
        return int(seconds) - EPICS_EPOCH_S, int(fraction * 1e9)

    @property
    def attributes(self) -> dict[str, float | int]:
        """Return the NDAttributes that travel with the frame."""
        return {
            "Angle": self.angle_deg,
            "FrameType": int(self.frame_type),
            "PhantomTime": self.phantom_time_s,
        }
