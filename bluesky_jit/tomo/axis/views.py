"""A sinogram in the order of its angles, and where a line is seen from its other side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

WIDEST_STEPS = 2.7
"""A gap of more typical steps is not interpolated: the golden ratio's square, by which gaps of golden angles differ."""
FEWEST_PAIRED = 12
"""Views with an opposite below which it is the seam of half a turn that tells more."""
EXACT_RAD = 1e-4
"""Angles nearer than this are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fan:
    """Say where the columns of a sinogram look.

    central: the column of the central ray; distance_px: from source to axis, in pixels at the axis, infinite in a
    parallel beam.
    """

    n_u: int
    central: float
    distance_px: float = np.inf

    def angles_of(self, columns: np.ndarray) -> np.ndarray:
        """Return the angle of each column's ray to the central one."""
        return np.arctan((columns - self.central) / self.distance_px)

    def mirrored(self, columns: np.ndarray, axis: float) -> np.ndarray:
        """Return the column that sees the same line from the other side, when the axis projects to column `axis`.

        A ray passes the axis at (s − a) cos γ, with tan γ = s / D; its opposite at minus that, and s follows from it.
        """
        s, a, distance = columns - self.central, axis - self.central, self.distance_px
        if np.isinf(distance):
            return 2 * axis - columns
        miss = -(s - a) / np.sqrt(1 + (s / distance) ** 2)
        k = (miss / distance) ** 2
        return self.central + (a + miss * np.sqrt(1 - k + (a / distance) ** 2)) / (1 - k)

    def turned(self, columns: np.ndarray, axis: float) -> np.ndarray:
        """Return how far the sample must turn until the mirrored column sees the line of each column."""
        return np.pi + self.angles_of(columns) - self.angles_of(self.mirrored(columns, axis))


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """Hold a sinogram in the order of its angles, within one turn.

    rows: float64 (n_rows, n, n_u); angles_rad: float64 (n,), ascending in [0, 2π).
    """

    rows: np.ndarray
    angles_rad: np.ndarray
    fan: Fan

    @classmethod
    def of(cls, rows: np.ndarray, angles_rad: np.ndarray, fan: Fan) -> Views:
        """Sort views (n_rows, n, n_u) into one turn."""
        folded = np.mod(angles_rad, 2 * np.pi)
        order = np.argsort(folded, kind="stable")
        return cls(rows=np.asarray(rows, dtype=np.float64)[:, order], angles_rad=folded[order], fan=fan)

    @property
    def step_rad(self) -> float:
        """Return the typical step between angles."""
        gaps = np.diff(self.angles_rad)
        gaps = gaps[gaps > 1e-6]
        return float(np.median(gaps)) if len(gaps) else 2 * np.pi

    @property
    def has_pairs(self) -> bool:
        """Say whether enough rays have an opposite that was measured, or lies between two views that were."""
        edges = np.array([0.0, self.fan.n_u - 1.0])
        turned = self.fan.turned(edges, self.fan.central)
        _, _, way, gap = self.neighbours(self.angles_rad[:, None] + turned[None, :])
        exact = np.minimum(way, 1 - way) * gap < EXACT_RAD
        return int(np.count_nonzero(((gap <= WIDEST_STEPS * self.step_rad) | exact).any(axis=1))) >= FEWEST_PAIRED

    def neighbours(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return for angles, any shape: the views before and after, the way between (0 to 1), the gap's width."""
        n = len(self.angles_rad)
        wanted = np.mod(wanted, 2 * np.pi)
        after = np.searchsorted(self.angles_rad, wanted, side="right")
        before = np.mod(after - 1, n)
        after = np.mod(after, n)
        gap = np.mod(self.angles_rad[after] - self.angles_rad[before], 2 * np.pi)
        way = np.mod(wanted - self.angles_rad[before], 2 * np.pi) / np.where(gap > 0, gap, 1)
        return before, after, way, gap


def high_passed(rows: np.ndarray, sigma_px: float) -> np.ndarray:
    """Return the smoothed derivative along the last axis: steps of intensity from view to view are gone from it."""
    return gaussian_filter1d(rows, sigma_px, axis=-1, order=1, mode="nearest")
