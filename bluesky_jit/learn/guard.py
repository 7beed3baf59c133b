"""The guard region: never trained on, so that quality can be told from patches that the network has not seen.

It is a slab through the middle of the region, inclined to all three axes: it crosses horizontal slices at every height
and most upright ones, and so the held-out figure is about what people look at. (A z band would miss most horizontal
slices, a sector most upright ones.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bluesky_jit.learn.region import Region
from bluesky_jit.tomo.grid import Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Describe the slab that is never trained on: the points p with |normal · p − offset_mm| ≤ thickness_mm / 2."""

    normal: Vector
    offset_mm: float
    thickness_mm: float

    @classmethod
    def across(cls, region: Region, *, thickness_mm: float) -> Guard:
        """Make the slab through the middle that crosses horizontal slices at every height and most upright ones."""
        normal = 1 / spread_mm(region)
        x, y, z = (float(value) for value in normal / np.linalg.norm(normal))
        return cls(normal=(x, y, z), offset_mm=float(np.dot((x, y, z), region.centre_mm)), thickness_mm=thickness_mm)

    def distances(self, points: np.ndarray) -> np.ndarray:
        """Return how far the points (…, 3) lie from the middle of the slab, in mm, with a sign."""
        return points @ np.asarray(self.normal) - self.offset_mm

    def touches(self, corners: np.ndarray) -> np.ndarray:
        """Return which patches, given by their corners (…, 8, 3), have a point in the slab."""
        distances = self.distances(corners)
        half = self.thickness_mm / 2
        return ~(np.all(distances > half, axis=-1) | np.all(distances < -half, axis=-1))

    def holds(self, corners: np.ndarray) -> np.ndarray:
        """Return which patches, given by their corners (…, 8, 3), lie wholly in the slab."""
        return np.all(abs(self.distances(corners)) <= self.thickness_mm / 2, axis=-1)


def spread_mm(region: Region) -> np.ndarray:
    """Return how far a region reaches along x, y and z, but of a flat one half as far as it is wide.

    Across its flat side the guard would be all of it.
    """
    extents = np.array(region.half_extents_mm)
    return np.maximum(extents, np.median(extents) / 2)
