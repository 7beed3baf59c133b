"""An oriented lattice of points in the sample's frame: a slice, a tilted slice, a slab, a patch or a volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bluesky_jit.tomo.geometry import require_positive

Vector = tuple[float, float, float]


def _vector(values: Any) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Describe an oriented lattice of points in the sample's frame: a slice, slab, patch or volume.

    Point [k, j, i] lies at origin + k·z_step + j·y_step + i·x_step, each an (x, y, z) vector in mm; shape is
    (nz, ny, nx).
    """

    origin: Vector
    z_step: Vector
    y_step: Vector
    x_step: Vector
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        for name in ("origin", "z_step", "y_step", "x_step"):
            object.__setattr__(self, name, _vector(getattr(self, name)))
        nz, ny, nx = (int(n) for n in self.shape)
        object.__setattr__(self, "shape", (nz, ny, nx))
        if min(self.shape) < 1:
            raise ValueError(f"a grid's shape is {self.shape}: give at least one point each way")

    @property
    def centre(self) -> Vector:
        nz, ny, nx = self.shape
        return _vector(self.points_of(np.array([[(nz - 1) / 2, (ny - 1) / 2, (nx - 1) / 2]]))[0])

    @property
    def steps(self) -> np.ndarray:
        """Return float64 (3, 3): rows are the z, y and x steps."""
        return np.array([self.z_step, self.y_step, self.x_step], dtype=np.float64)

    def points_of(self, indices: np.ndarray) -> np.ndarray:
        """Return (n, 3) mm for fractional indices (n, 3) in (k, j, i) order."""
        return np.asarray(self.origin) + np.asarray(indices, dtype=np.float64) @ self.steps

    def points(self) -> np.ndarray:
        """Return float64 (nz, ny, nx, 3): every point, in mm."""
        k, j, i = np.meshgrid(*(np.arange(n) for n in self.shape), indexing="ij")
        return self.points_of(np.stack([k, j, i], axis=-1).reshape(-1, 3)).reshape(*self.shape, 3)

    def moved(self, offset_mm: Vector) -> Grid:
        """Return the same lattice shifted by a vector in mm."""
        return Grid(
            origin=_vector(np.add(self.origin, offset_mm)),
            z_step=self.z_step,
            y_step=self.y_step,
            x_step=self.x_step,
            shape=self.shape,
        )

    @classmethod
    def centred(
        cls, *, centre: Vector, x_axis: Vector, y_axis: Vector, voxel_mm: float, shape: tuple[int, int, int]
    ) -> Grid:
        """Make a grid around `centre`, its columns along x_axis and rows along y_axis (made orthonormal)."""
        require_positive("voxel_mm", voxel_mm, "mm")
        x = np.asarray(x_axis, dtype=np.float64)
        y = np.asarray(y_axis, dtype=np.float64)
        if np.linalg.norm(np.cross(x, y)) < 1e-9:
            raise ValueError(f"x_axis {x_axis} and y_axis {y_axis} are parallel: give two directions")
        x = x / np.linalg.norm(x)
        y = y - (y @ x) * x
        y = y / np.linalg.norm(y)
        z = np.cross(x, y)
        nz, ny, nx = shape
        half = (nz - 1) / 2 * z + (ny - 1) / 2 * y + (nx - 1) / 2 * x
        return cls(
            origin=_vector(np.asarray(centre) - voxel_mm * half),
            z_step=_vector(voxel_mm * z),
            y_step=_vector(voxel_mm * y),
            x_step=_vector(voxel_mm * x),
            shape=shape,
        )

    @classmethod
    def slice_xy(cls, *, z_mm: float = 0.0, voxel_mm: float, shape: tuple[int, int]) -> Grid:
        """Make a horizontal slice: columns along +x, rows along +y."""
        return cls.centred(
            centre=(0, 0, z_mm), x_axis=(1, 0, 0), y_axis=(0, 1, 0), voxel_mm=voxel_mm, shape=(1, *shape)
        )

    @classmethod
    def slice_xz(cls, *, y_mm: float = 0.0, voxel_mm: float, shape: tuple[int, int]) -> Grid:
        """Make an upright slice: columns along +x, rows along +z."""
        return cls.centred(
            centre=(0, y_mm, 0), x_axis=(1, 0, 0), y_axis=(0, 0, 1), voxel_mm=voxel_mm, shape=(1, *shape)
        )

    @classmethod
    def slice_yz(cls, *, x_mm: float = 0.0, voxel_mm: float, shape: tuple[int, int]) -> Grid:
        """Make an upright slice: columns along +y, rows along +z."""
        return cls.centred(
            centre=(x_mm, 0, 0), x_axis=(0, 1, 0), y_axis=(0, 0, 1), voxel_mm=voxel_mm, shape=(1, *shape)
        )

    @classmethod
    def volume(cls, *, voxel_mm: float, shape: tuple[int, int, int]) -> Grid:
        """Make a volume around the axis, such as the preview."""
        return cls.centred(centre=(0, 0, 0), x_axis=(1, 0, 0), y_axis=(0, 1, 0), voxel_mm=voxel_mm, shape=shape)

    def to_metadata(self) -> dict[str, Any]:
        return {
            "origin": list(self.origin),
            "z_step": list(self.z_step),
            "y_step": list(self.y_step),
            "x_step": list(self.x_step),
            "shape": list(self.shape),
        }
