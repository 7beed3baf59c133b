"""Bring time stamps of different clocks to seconds since the Unix epoch."""

from __future__ import annotations

import numpy as np

EPICS_EPOCH_S = 631_152_000.0
"""1990-01-01 in seconds since the Unix epoch: areaDetector counts its time stamps from there."""


def unix_times(times: np.ndarray, near_s: float) -> np.ndarray:
    """Return time stamps as seconds since the Unix epoch; areaDetector's own count from 1990.

    near_s: a time of the same run, which tells the two epochs apart.
    """
    times = np.asarray(times, dtype=np.float64)
    if times.size and abs(times[0] + EPICS_EPOCH_S - near_s) < abs(times[0] - near_s):
        return times + EPICS_EPOCH_S
    return times
