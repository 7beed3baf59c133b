"""Say where a point of the sample lands on the detector.

The frame is right-handed, in millimetres and fixed to the sample, with z along the rotation axis. At angle 0 the beam
travels along +y, detector columns (u) run along +x and rows (v) along +z. The sample turns anticlockwise seen from +z.
See docs/explanations/geometry.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


def require_positive(name: str, value: float, unit: str) -> None:
    """Raise ValueError unless a value is finite and above 0."""
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
        require_positive("pixel_mm", self.pixel_mm, "mm")
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
        require_positive("source_axis_mm", self.source_axis_mm, "mm")
        require_positive("source_detector_mm", self.source_detector_mm, "mm")
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
