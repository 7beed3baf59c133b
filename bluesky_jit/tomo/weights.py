"""Give each projection the arc it stands for, whatever order and spacing the angles have."""

from __future__ import annotations

import numpy as np
from numba import njit

from bluesky_jit.tomo.arcs import SAME_ANGLE, Arc


def split_weights(angles_rad: np.ndarray, splits: np.ndarray, n_splits: int, arc: Arc) -> np.ndarray:
    """Return the arc, float64 (n,) in rad, that each angle stands for within its split: every split sums to the arc.

    Otherwise a lost frame would make one split estimate more of the object than another.
    """
    weights = np.zeros(len(angles_rad))
    for split in range(n_splits):
        members = splits == split
        weights[members] = arc_weights(angles_rad[members], arc)
    return weights


def arc_weights(angles_rad: np.ndarray, arc: Arc) -> np.ndarray:
    """Return the arc, float64 (n,) in rad, that each angle stands for: half the gaps to its two neighbours."""
    n = len(angles_rad)
    if n == 0:
        return np.zeros(0)
    position = np.mod(np.asarray(angles_rad, dtype=np.float64) - arc.start_rad, arc.period_rad)
    order = position.argsort(kind="stable")
    weights = np.empty(n)
    same = SAME_ANGLE * arc.length_rad / n
    weights[order] = _shares(position[order], same, arc.length_rad, arc.period_rad, arc.closed)
    return weights


@njit(cache=True, nogil=True, error_model="numpy")
def _shares(position, same, length, period, closed):
    """Share an arc out to sorted positions (n,); those nearer to each other than `same` are one angle, and share.

    Half gaps alone would give the middle one of three repeated angles nothing and waste what it measured. Compiled,
    since it is wanted for every projection that comes.
    """
    n = len(position)
    first = np.empty(n + 1, dtype=np.int64)
    centre = np.empty(n)
    groups = 0
    for k in range(n):
        if k == 0 or position[k] - position[k - 1] > same:
            first[groups] = k
            centre[groups] = 0.0
            groups += 1
        centre[groups - 1] += position[k]
    first[groups] = n
    for g in range(groups):
        centre[g] /= first[g + 1] - first[g]
    begin = (centre[groups - 1] - period + centre[0]) / 2 if closed else 0.0
    end = begin + period if closed else length
    shares = np.empty(n)
    for g in range(groups):
        low = (centre[g - 1] + centre[g]) / 2 if g > 0 else begin
        high = (centre[g] + centre[g + 1]) / 2 if g + 1 < groups else end
        for k in range(first[g], first[g + 1]):
            shares[k] = (high - low) / (first[g + 1] - first[g])
    return shares
