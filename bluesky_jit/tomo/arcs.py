"""Say which arc angles cover, whatever their order and spacing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
