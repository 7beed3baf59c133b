"""An oriented lattice of points in the sample's frame: a slice, a tilted slice, a slab, a patch or a volume."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from bluesky_jit.tomo.geometry import Geometry, require_positive

Vector = tuple[float, float, float]
UPRIGHT = 1e-9
"""A normal whose horizontal part is smaller than this is that of a horizontal slice."""
VECTORS = ("origin", "z_step", "y_step", "x_step")


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
        for name in VECTORS:
            vector = _vector(getattr(self, name))
            if not all(map(math.isfinite, vector)):
                raise ValueError(f"a grid's {name} is {vector}: give three finite numbers of mm")
            object.__setattr__(self, name, vector)
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
        return replace(self, origin=_vector(np.add(self.origin, offset_mm)))

    def slab(self, n_planes: int, *, spacing_mm: float | None = None) -> Grid:
        """Return n planes around this slice, one above the other; spacing_mm: other than the z step's length."""
        z_step = np.asarray(self.z_step)
        if spacing_mm is not None:
            require_positive("spacing_mm", spacing_mm, "mm")
            z_step = z_step * (spacing_mm / np.linalg.norm(z_step))
        return self._resized(self.centre, np.stack([z_step, *self.steps[1:]]), (n_planes, *self.shape[1:]))

    def patch(self, corner: tuple[int, int, int], shape: tuple[int, int, int]) -> Grid:
        """Return a part: the points from index `corner` (k, j, i) on, `shape` (nz, ny, nx) of them."""
        beyond = np.add(corner, shape) > self.shape
        if min(corner) < 0 or beyond.any():
            raise ValueError(f"a patch of {shape} at {corner} leaves the grid of {self.shape}: take one inside it")
        return replace(self, origin=_vector(self.points_of(np.array([corner]))[0]), shape=shape)

    def zoomed(self, factor: float, *, centre: Vector | None = None) -> Grid:
        """Return as many points, `factor` times as close, around `centre` (mm), or around the same middle."""
        require_positive("factor", factor, "times")
        return self._resized(self.centre if centre is None else centre, self.steps / factor, self.shape)

    def coarser(self, n: int) -> Grid:
        """Return the same region with points n times as far apart, at the middle of those that they stand for."""
        if n < 1:
            raise ValueError(f"n is {n}: give a whole number of points, 1 or more, that one stands for")
        steps = np.where(np.array(self.shape)[:, None] > 1, n * self.steps, self.steps)
        nz, ny, nx = (max(1, round(points / n)) for points in self.shape)
        return self._resized(self.centre, steps, (nz, ny, nx))

    def _resized(self, centre: Vector, steps: np.ndarray, shape: tuple[int, int, int]) -> Grid:
        half = (np.array(shape) - 1) / 2 @ steps
        z_step, y_step, x_step = (_vector(step) for step in steps)
        origin = _vector(np.asarray(centre) - half)
        return Grid(origin=origin, z_step=z_step, y_step=y_step, x_step=x_step, shape=shape)

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
        steps = voxel_mm * np.stack([np.cross(x, y), y, x])
        z_step, y_step, x_step = (_vector(step) for step in steps)
        origin = _vector(np.asarray(centre) - (np.array(shape) - 1) / 2 @ steps)
        return cls(origin=origin, z_step=z_step, y_step=y_step, x_step=x_step, shape=shape)

    @classmethod
    def tilted(
        cls,
        *,
        centre: Vector = (0.0, 0.0, 0.0),
        normal: Vector,
        rotation_rad: float = 0.0,
        voxel_mm: float,
        shape: tuple[int, int],
    ) -> Grid:
        """Make a slice square to `normal`, as seen by somebody whom the normal points at.

        Rows go up as steeply as they can, and columns to the right; a horizontal slice has its columns along +x.
        rotation_rad turns both, anticlockwise.
        """
        length = np.linalg.norm(normal)
        if not (np.isfinite(length) and length > 0):
            raise ValueError(f"normal is {normal}: give a direction, such as (0, 0, 1)")
        towards = np.asarray(normal) / length
        across = np.array([-towards[1], towards[0], 0.0])
        right = across / np.linalg.norm(across) if np.linalg.norm(across) > UPRIGHT else np.array([1.0, 0.0, 0.0])
        up = np.cross(towards, right)
        cos, sin = np.cos(rotation_rad), np.sin(rotation_rad)
        return cls.centred(
            centre=centre,
            x_axis=_vector(cos * right + sin * up),
            y_axis=_vector(cos * up - sin * right),
            voxel_mm=voxel_mm,
            shape=(1, *shape),
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

    @classmethod
    def preview(cls, geometry: Geometry, n: int) -> Grid:
        """Make the coarse volume that covers the field of view, n points across."""
        voxel_mm = 2 * geometry.radius_mm / n
        return cls.volume(voxel_mm=voxel_mm, shape=(max(1, round(2 * geometry.half_height_mm / voxel_mm)), n, n))

    def to_metadata(self) -> dict[str, Any]:
        """Return what JSON keeps."""
        return {name: list(value) for name, value in asdict(self).items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Grid:
        """Make the grid that `to_metadata` described."""
        if set(metadata) != {*VECTORS, "shape"}:
            raise ValueError(f"a grid cannot be made from {sorted(metadata)}: give {', '.join(VECTORS)} and shape")
        return cls(**metadata)
