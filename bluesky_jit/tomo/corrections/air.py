"""Follow the beam from frame to frame by the columns that see nothing but air.

The formulas serve numpy and cupy arrays alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bluesky_jit.tomo.corrections.array_module import array_module
from bluesky_jit.tomo.field import reaches_mm
from bluesky_jit.tomo.geometry import Geometry

Side = Literal["left", "right"]

UNLIKE = 0.1
"""Difference of the two sides, as part of the brighter one, that is no beam's drift any more but something before one
of them: beams that wander by a tenth of themselves within a scan are repaired, not corrected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beam:
    """Hold how bright the air is at the left and the right, as part of the flats; obstructed: one side sees no air."""

    left: float
    right: float
    obstructed: bool

    @property
    def level(self) -> float:
        """Return the mean of both sides."""
        return (self.left + self.right) / 2


def require_columns(columns: int, n_u: int) -> None:
    """Raise ValueError unless the detector has so many columns on each side."""
    if 2 * columns > n_u:
        raise ValueError(
            f"air_columns is {columns} at each side and the detector has {n_u} columns: give as many as see no sample "
            "in any projection, or 0"
        )


def air_side(geometry: Geometry) -> Side | None:
    """Say on which side alone a detector can see air; None for both.

    In the extended field the short side sees the sample in every projection, for that is what it is for.
    """
    if not geometry.extended_field:
        return None
    left, right = reaches_mm(geometry)
    return "right" if right > left else "left"


def beam_of(transmission: np.ndarray, columns: int, side: Side | None = None) -> Beam:
    """Read the beam from the outermost columns at each side of a transmission (n_v, n_u), or at one side alone.

    Each side counts by its median, which a few bad pixels do not move. Of sides too different only the brighter one
    counts: a sample or its holder can only darken.
    """
    xp = array_module(transmission)
    if side is not None:
        level = float(xp.median(transmission[:, :columns] if side == "left" else transmission[:, -columns:]))
        return Beam(left=level, right=level, obstructed=False)
    left, right = (float(xp.median(side)) for side in (transmission[:, :columns], transmission[:, -columns:]))
    brighter = max(left, right)
    if abs(left - right) <= UNLIKE * brighter:
        return Beam(left=left, right=right, obstructed=False)
    return Beam(left=brighter, right=brighter, obstructed=True)


def level_out(transmission: np.ndarray, beam: Beam, columns: int) -> None:
    """Divide a transmission (n_v, n_u), in place, by the beam: linear between the middles of both sides' columns."""
    xp = array_module(transmission)
    n_u = transmission.shape[1]
    first = (columns - 1) / 2
    part = (xp.arange(n_u) - first) / (n_u - 1 - 2 * first)
    transmission /= (beam.left + (beam.right - beam.left) * part).astype(xp.float32)
