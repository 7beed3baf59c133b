"""Give each projection the arc it stands for, whatever order and spacing the angles have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

SEAM_RAD = np.pi / 12
"""A gap up to this wide is lost frames; a wider one is an arc not measured, ..."""
SEAM_STEPS = 4
"""... unless it is no wider than this many mean spacings."""
SAME_ANGLE = 0.2
"""Angles nearer than this part of the mean spacing are one angle measured again in a later turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arc:
    """Describe what angles, folded into one period, cover: length_rad from start_rad on; all of it when closed.

    spacing_rad: mean distance of neighbouring angles; largest_gap_rad: the widest gap of all; widest_inside_rad: the
    widest one within what is covered.
    """

    period_rad: float
    start_rad: float
    length_rad: float
    spacing_rad: float
    largest_gap_rad: float
    widest_inside_rad: float
    closed: bool

    @property
    def part(self) -> float:
        """Return what part of the period is covered, 0 to 1."""
        return self.length_rad / self.period_rad


def covered_arc(angles_rad: np.ndarray, period_rad: float) -> Arc:
    """Find the arc that the angles (n,) cover, each end reaching half a mean spacing beyond the last angle."""
    folded = np.sort(np.mod(angles_rad, period_rad))
    n = len(folded)
    if n < 2:
        start = float(folded[0]) if n else 0.0
        return Arc(
            period_rad=period_rad,
            start_rad=start,
            length_rad=0.0,
            spacing_rad=period_rad,
            largest_gap_rad=period_rad,
            widest_inside_rad=period_rad,
            closed=False,
        )
    gaps = np.empty(n)
    gaps[:-1], gaps[-1] = folded[1:] - folded[:-1], folded[0] + period_rad - folded[-1]
    widest = int(gaps.argmax())
    gap = float(gaps[widest])
    n_repeated = np.count_nonzero(gaps <= SAME_ANGLE * (period_rad - gap) / (n - 1))
    spacing = (period_rad - gap) / max(n - 1 - n_repeated, 1)
    if gap <= max(SEAM_RAD, SEAM_STEPS * spacing):
        return Arc(
            period_rad=period_rad,
            # In the middle of the widest gap, so that no repeated angle is cut in two by the seam.
            start_rad=float(folded[widest]) + gap / 2,
            length_rad=period_rad,
            spacing_rad=spacing,
            largest_gap_rad=gap,
            widest_inside_rad=gap,
            closed=True,
        )
    first = float(folded[(widest + 1) % n])
    gaps[widest] = 0.0
    return Arc(
        period_rad=period_rad,
        start_rad=first - spacing / 2,
        length_rad=period_rad - gap + spacing,
        spacing_rad=spacing,
        largest_gap_rad=gap,
        widest_inside_rad=float(gaps.max()),
        closed=False,
    )


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
