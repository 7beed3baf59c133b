"""Say where a point of the sample lands on the detector, and which points a slice is made of.

The frame is right-handed, in millimetres and fixed to the sample, with z along the rotation axis. At angle 0 the beam
travels along +y, detector columns (u) run along +x and rows (v) along +z. The sample turns anticlockwise seen from +z.
See docs/explanations/geometry.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


def _require_positive(name: str, value: float, unit: str) -> None:
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value}: give a positive number of {unit}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Detector:
    """Describe the detector and the axis: what cone and parallel beam have in common."""

    n_u: int
    n_v: int
    pixel_mm: float
    axis_offset_mm: float = 0.0

    def __post_init__(self) -> None:
        for name in ("n_u", "n_v"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: a detector has at least one pixel each way")
        _require_positive("pixel_mm", self.pixel_mm, "mm")
        if not np.isfinite(self.axis_offset_mm):
            raise ValueError(f"axis_offset_mm is {self.axis_offset_mm}: give a finite number of mm")

    @property
    def u_centre(self) -> float:
        """Return the column, in pixels, that the beam's central ray hits."""
        return (self.n_u - 1) / 2

    @property
    def v_centre(self) -> float:
        """Return the row, in pixels, that the beam's central ray hits."""
        return (self.n_v - 1) / 2

    def _lab_rows(self, angles_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows (n, 4) that take a homogeneous sample point to lab x (with the axis offset) and lab y."""
        angles = np.atleast_1d(np.asarray(angles_rad, dtype=np.float64))
        cos, sin, zero = np.cos(angles), np.sin(angles), np.zeros_like(angles)
        x = np.stack([cos, -sin, zero, np.full_like(angles, self.axis_offset_mm)], axis=1)
        y = np.stack([sin, cos, zero, zero], axis=1)
        return x, y


@dataclass(frozen=True, slots=True, kw_only=True)
class ConeGeometry(_Detector):
    """Describe a cone-beam set-up: a point source, a turning sample, a flat detector."""

    source_axis_mm: float
    source_detector_mm: float

    def __post_init__(self) -> None:
        _Detector.__post_init__(self)
        _require_positive("source_axis_mm", self.source_axis_mm, "mm")
        _require_positive("source_detector_mm", self.source_detector_mm, "mm")
        if self.source_detector_mm <= self.source_axis_mm:
            raise ValueError(
                f"source_detector_mm is {self.source_detector_mm} and source_axis_mm {self.source_axis_mm}: "
                "the detector lies behind the axis, so give a larger source_detector_mm"
            )

    @property
    def kind(self) -> str:
        return "cone"

    @property
    def magnification(self) -> float:
        return self.source_detector_mm / self.source_axis_mm

    @property
    def voxel_mm(self) -> float:
        """Return the pixel's size seen at the axis."""
        return self.pixel_mm / self.magnification

    @property
    def radius_mm(self) -> float:
        """Return the radius of the cylinder that every projection sees: as far as the nearer outermost ray."""
        half_width = self.n_u / 2 * self.voxel_mm
        cosine = self.source_axis_mm / np.hypot(self.source_axis_mm, half_width)
        return float((half_width - abs(self.axis_offset_mm)) * cosine)

    @property
    def half_height_mm(self) -> float:
        """Return the half height, on the axis, that every projection sees."""
        return self.n_v / 2 * self.voxel_mm

    def matrices(self, angles_rad: np.ndarray) -> np.ndarray:
        """Return float64 (n, 3, 4): homogeneous sample point (mm) -> (u·w, v·w, w), with w = 1 on the axis."""
        x, y = self._lab_rows(angles_rad)
        w = y / self.source_axis_mm
        w[:, 3] += 1.0
        z = np.zeros_like(x)
        z[:, 2] = 1.0
        return np.stack([x / self.voxel_mm + self.u_centre * w, z / self.voxel_mm + self.v_centre * w, w], axis=1)

    def to_metadata(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelGeometry(_Detector):
    """Describe a parallel-beam set-up, as at a synchrotron."""

    @property
    def kind(self) -> str:
        return "parallel"

    @property
    def voxel_mm(self) -> float:
        return self.pixel_mm

    @property
    def radius_mm(self) -> float:
        """Return the radius of the cylinder that every projection sees."""
        return self.n_u / 2 * self.pixel_mm - abs(self.axis_offset_mm)

    @property
    def half_height_mm(self) -> float:
        return self.n_v / 2 * self.pixel_mm

    def matrices(self, angles_rad: np.ndarray) -> np.ndarray:
        """Return float64 (n, 3, 4): homogeneous sample point (mm) -> (u, v, 1)."""
        x, _ = self._lab_rows(angles_rad)
        w = np.zeros_like(x)
        w[:, 3] = 1.0
        z = np.zeros_like(x)
        z[:, 2] = 1.0
        return np.stack([x / self.pixel_mm + self.u_centre * w, z / self.pixel_mm + self.v_centre * w, w], axis=1)

    def to_metadata(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}


Geometry = ConeGeometry | ParallelGeometry


def geometry_from_metadata(metadata: dict[str, Any]) -> Geometry:
    """Make the geometry that `to_metadata` described."""
    values = dict(metadata)
    kind = values.pop("kind", None)
    kinds = {"cone": ConeGeometry, "parallel": ParallelGeometry}
    if kind not in kinds:
        raise ValueError(f"geometry is {kind!r}: give one of {', '.join(kinds)}")
    try:
        return kinds[kind](**values)
    except TypeError as error:
        raise ValueError(f"the {kind} geometry cannot be made from {sorted(values)}: {error}") from error


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
        _require_positive("voxel_mm", voxel_mm, "mm")
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
