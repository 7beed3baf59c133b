"""Where patches may lie: an upright cylinder or a box, in mm and fixed to the sample."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from bluesky_jit.tomo.geometry import Geometry, require_positive
from bluesky_jit.tomo.grid import Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class Cylinder:
    """Describe an upright cylinder; by default around the middle of the rotation axis."""

    radius_mm: float
    half_height_mm: float
    centre_mm: Vector = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        require_positive("radius_mm", self.radius_mm, "mm")
        require_positive("half_height_mm", self.half_height_mm, "mm")
        _require_finite("centre_mm", self.centre_mm)

    @property
    def half_extents_mm(self) -> Vector:
        """Return how far it reaches from its centre along x, y and z."""
        return self.radius_mm, self.radius_mm, self.half_height_mm

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Return which of the points (…, 3), in mm, lie in the cylinder."""
        x, y, z = np.moveaxis(points - np.asarray(self.centre_mm), -1, 0)
        return (np.hypot(x, y) <= self.radius_mm) & (abs(z) <= self.half_height_mm)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Return points (count, 3), uniform over the cylinder, in mm."""
        radius = self.radius_mm * np.sqrt(rng.random(count))
        azimuth = rng.uniform(0, 2 * np.pi, count)
        height = rng.uniform(-self.half_height_mm, self.half_height_mm, count)
        return self.centre_mm + np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), height], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Describe a box along x, y and z by its lowest and its highest corner."""

    low_mm: Vector
    high_mm: Vector

    def __post_init__(self) -> None:
        _require_finite("low_mm", self.low_mm)
        _require_finite("high_mm", self.high_mm)
        if not np.all(np.less(self.low_mm, self.high_mm)):
            raise ValueError(f"the box from {self.low_mm} to {self.high_mm} mm is empty: give x, y and z that ascend")

    @property
    def centre_mm(self) -> Vector:
        x, y, z = (float(value) for value in np.add(self.low_mm, self.high_mm) / 2)
        return x, y, z

    @property
    def half_extents_mm(self) -> Vector:
        """Return how far it reaches from its centre along x, y and z."""
        x, y, z = (float(value) for value in np.subtract(self.high_mm, self.low_mm) / 2)
        return x, y, z

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Return which of the points (…, 3), in mm, lie in the box."""
        return np.all((points >= np.asarray(self.low_mm)) & (points <= np.asarray(self.high_mm)), axis=-1)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Return points (count, 3), uniform over the box, in mm."""
        return rng.uniform(self.low_mm, self.high_mm, (count, 3))


Region = Cylinder | Box


def field_cylinder(geometry: Geometry) -> Cylinder:
    """Return the cylinder around the axis that every projection sees whole."""
    radius_mm, half_height_mm = geometry.cylinder_mm
    return Cylinder(radius_mm=radius_mm, half_height_mm=half_height_mm)


def corners_of(region: Region) -> np.ndarray:
    """Return the corners (8, 3) of the smallest box around a region, in mm."""
    return region.centre_mm + np.array(list(product((-1, 1), repeat=3))) * region.half_extents_mm


def _require_finite(name: str, values: Vector) -> None:
    if len(values) != 3 or not np.all(np.isfinite(values)):
        raise ValueError(f"{name} is {values}: give three finite numbers of mm")
