"""Say where a point of the sample lands on the detector.

The frame is right-handed, in millimetres and fixed to the sample, with z along the rotation axis. At angle 0 the beam
travels along +y, detector columns (u) run along +x and rows (v) along +z. The sample turns anticlockwise seen from +z.
What is filtered and backprojected are pixels of the virtual detector, which stands square to the central ray however
the real one leans. See docs/explanations/geometry.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bluesky_jit.tomo.calibration import Calibration, calibration_from_metadata
from bluesky_jit.tomo.field import cylinder_mm, heights_mm, reaches_mm, require_field, tilted_reach_mm

LARGEST_TURN_RAD = np.pi / 4
"""A detector that is turned by more than this has its rows and columns the other way round."""
LARGEST_TILT_RAD = np.deg2rad(80)
"""With the axis along the beam (90°) every projection would be the same."""


def require_positive(name: str, value: float, unit: str) -> None:
    """Raise ValueError unless a value is finite and above 0."""
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value}: give a positive number of {unit}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUp(ABC):
    """Describe the detector, the axis and what is off: what cone and parallel beam have in common.

    Lengths are in mm, turns in rad and right-handed about an axis of the laboratory.

    axis_offset_mm: lab x of the rotation axis, measured at the axis; detector_u_mm, detector_v_mm: how far the
    detector's centre lies, along its columns and rows, from where the central ray hits it; detector_roll_rad,
    detector_pitch_rad, detector_yaw_rad: its turns about the beam (first), lab x and lab z (last); axis_tilt_rad: the
    rotation axis' turn about lab x (laminography); extended_field: the detector sees one side of a wide sample, and
    half a turn later the other; calibration: shifts measured angle by angle.
    """

    n_u: int
    n_v: int
    pixel_mm: float
    axis_offset_mm: float = 0.0
    detector_u_mm: float = 0.0
    detector_v_mm: float = 0.0
    detector_roll_rad: float = 0.0
    detector_pitch_rad: float = 0.0
    detector_yaw_rad: float = 0.0
    axis_tilt_rad: float = 0.0
    extended_field: bool = False
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        for name in ("n_u", "n_v"):
            value = getattr(self, name)
            if value < 1 or int(value) != value:
                raise ValueError(f"{name} is {value}: a detector has at least one pixel each way, and whole ones")
            object.__setattr__(self, name, int(value))
        require_positive("pixel_mm", self.pixel_mm, "mm")
        for name in LENGTHS:
            self._require_finite(name, "mm")
        for name in ("detector_roll_rad", "detector_pitch_rad", "detector_yaw_rad"):
            self._require_radians(name, LARGEST_TURN_RAD, "mount the detector upright or turn its frames")
        self._require_radians("axis_tilt_rad", LARGEST_TILT_RAD, "tilt the axis less")

    def _require_finite(self, name: str, unit: str) -> None:
        value = getattr(self, name)
        if not np.isfinite(value):
            raise ValueError(f"{name} is {value}: give a finite number of {unit}")
        object.__setattr__(self, name, float(value))

    def _require_radians(self, name: str, largest: float, remedy: str) -> None:
        self._require_finite(name, "rad")
        value = getattr(self, name)
        if abs(value) > largest:
            raise ValueError(
                f"{name} is {value:g}, and {largest:.3g} ({np.rad2deg(largest):.0f}°) is the limit: it looks like "
                f"degrees, so give radians ({np.deg2rad(value):.4g} for {value:g}°); if it is meant, {remedy}"
            )

    @property
    @abstractmethod
    def kind(self) -> str:
        """Name the beam's shape."""

    @property
    @abstractmethod
    def voxel_mm(self) -> float:
        """Return the pixel's size seen at the axis."""

    @property
    @abstractmethod
    def curvature(self) -> float:
        """Return 1 / source_axis_mm; 0 in a parallel beam."""

    @property
    def u_centre(self) -> float:
        """Return the column, in pixels, that the beam's central ray hits."""
        return (self.n_u - 1) / 2 - self.detector_u_mm / self.pixel_mm

    @property
    def v_centre(self) -> float:
        """Return the row, in pixels, that the beam's central ray hits."""
        return (self.n_v - 1) / 2 - self.detector_v_mm / self.pixel_mm

    @property
    def period_rad(self) -> float:
        """Return the arc that shows everything once: half a turn of an upright parallel beam, else a full turn."""
        half = self.kind == "parallel" and self.axis_tilt_rad == 0 and not self.extended_field
        return np.pi if half else 2 * np.pi

    @property
    def radius_mm(self) -> float:
        """Return the radius of the cylinder that every projection sees, in the extended field every other one.

        It holds in the plane of the central ray. A tilted axis makes it narrower, where the circle would leave the
        detector above and below.
        """
        across = (max if self.extended_field else min)(reaches_mm(self))
        return min(across, tilted_reach_mm(self))

    @property
    def half_height_mm(self) -> float:
        """Return the half height, on the axis, that every projection sees."""
        return min(heights_mm(self))

    @property
    def cylinder_mm(self) -> tuple[float, float]:
        """Return radius and half height of a cylinder that every projection sees whole."""
        return cylinder_mm(self)

    @property
    def needs_resampling(self) -> bool:
        """Say whether the real detector leans, so that frames must be brought to the virtual one."""
        return any((self.detector_roll_rad, self.detector_pitch_rad, self.detector_yaw_rad))

    @property
    def detector_axes(self) -> np.ndarray:
        """Return float64 (3, 3) in the laboratory's frame: columns are the detector's u, its normal, and its v."""
        roll, pitch, yaw = self.detector_roll_rad, self.detector_pitch_rad, self.detector_yaw_rad
        return _turn(2, yaw) @ _turn(0, pitch) @ _turn(1, roll)

    @property
    def to_real(self) -> np.ndarray:
        """Return float64 (3, 3): homogeneous virtual pixel (u, v, 1) -> real pixel (u·w, v·w, w).

        Both detectors have pixels of one size, and the central ray hits them in one place.
        """
        centre = np.array([[1.0, 0.0, self.u_centre], [0.0, 1.0, self.v_centre], [0.0, 0.0, 1.0]])
        return centre @ self._lean @ np.linalg.inv(centre)

    @property
    def _lean(self) -> np.ndarray:
        """Return what `to_real` does to pixels counted from the central ray."""
        axes = self.detector_axes
        # How much sooner, going along x or z, a ray meets the real detector than the virtual one.
        sooner = axes[[0, 2], 1] / axes[1, 1]
        lean = np.eye(3)
        lean[0, :2] = axes[[0, 2], 0] - axes[1, 0] * sooner
        lean[1, :2] = axes[[0, 2], 2] - axes[1, 2] * sooner
        lean[2, :2] = sooner * self.voxel_mm * self.curvature
        return lean

    def to_laboratory(self, angles_rad: np.ndarray) -> np.ndarray:
        """Return float64 (n, 4, 4): homogeneous sample point (mm) -> laboratory, whose origin lies on the central ray.

        The rotation axis crosses the plane of the central ray at (axis_offset_mm, 0, 0).
        """
        angles = np.atleast_1d(np.asarray(angles_rad, dtype=np.float64))
        if angles.ndim != 1 or not np.isfinite(angles).all():
            raise ValueError(f"angles are {angles_rad}: give a list of finite numbers, in radians")
        matrices = np.zeros((len(angles), 4, 4))
        matrices[:, 0, 0] = matrices[:, 1, 1] = np.cos(angles)
        matrices[:, 1, 0] = np.sin(angles)
        matrices[:, 0, 1] = -matrices[:, 1, 0]
        matrices[:, 2, 2] = matrices[:, 3, 3] = 1.0
        matrices[:, :3, :3] = _turn(0, self.axis_tilt_rad) @ matrices[:, :3, :3]
        matrices[:, 0, 3] = self.axis_offset_mm
        if self.calibration:
            for row, name in enumerate(("sample_x_mm", "sample_y_mm", "sample_z_mm")):
                matrices[:, row, 3] += self.calibration.shifts(name, angles)
        return matrices

    def matrices(self, angles_rad: np.ndarray) -> np.ndarray:
        """Return float64 (n, 3, 4): homogeneous sample point (mm) -> virtual pixel (u·w, v·w, w), w = 1 on the axis.

        The virtual detector follows the calibration's shifts of the real one as they are near the central ray.
        """
        # Wanted with every projection that comes, so that nothing is worked out that is not needed.
        shift_axes = np.linalg.inv(self._lean[:2, :2]) if self.calibration else np.eye(2)
        return self._projected(angles_rad, np.eye(3), shift_axes)

    def detector_matrices(self, angles_rad: np.ndarray) -> np.ndarray:
        """Return float64 (n, 3, 4): homogeneous sample point (mm) -> pixel of the real detector (u·w, v·w, w)."""
        return self._projected(angles_rad, self.to_real, np.eye(2))

    def _projected(self, angles_rad: np.ndarray, to_pixels: np.ndarray, shift_axes: np.ndarray) -> np.ndarray:
        """Project onto the virtual detector, go on to other pixels, and there allow for the detector's shifts."""
        depth = np.array([0.0, self.curvature, 0.0, 1.0])
        camera = np.stack([self.u_centre * depth, self.v_centre * depth, depth])
        camera[0, 0] = camera[1, 2] = 1 / self.voxel_mm
        matrices = to_pixels @ camera @ self.to_laboratory(angles_rad)
        if self.calibration:
            angles = np.atleast_1d(angles_rad)
            shifts = [self.calibration.shifts(name, angles) for name in ("detector_u_mm", "detector_v_mm")]
            matrices[:, :2] -= (shift_axes @ shifts / self.pixel_mm).T[:, :, None] * matrices[:, 2:]
        return matrices

    def to_metadata(self) -> dict[str, Any]:
        """Return what JSON keeps, all of it."""
        calibration = {"calibration": self.calibration.to_metadata()} if self.calibration else {}
        return {"kind": self.kind, **asdict(self), **calibration}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConeGeometry(SetUp):
    """Describe a cone-beam set-up: a point source, a turning sample, a flat detector.

    source_axis_mm, source_detector_mm: from the source along the central ray, to the axis and to the detector.
    """

    source_axis_mm: float
    source_detector_mm: float

    def __post_init__(self) -> None:
        SetUp.__post_init__(self)
        for name in ("source_axis_mm", "source_detector_mm"):
            require_positive(name, getattr(self, name), "mm")
            self._require_finite(name, "mm")
        if self.source_detector_mm <= self.source_axis_mm:
            raise ValueError(
                f"source_detector_mm is {self.source_detector_mm} and source_axis_mm {self.source_axis_mm}: "
                "the detector lies behind the axis, so give a larger source_detector_mm"
            )
        if self.calibration and self.calibration.largest("sample_y_mm") >= self.source_axis_mm:
            raise ValueError(
                f"the calibration moves the sample by {self.calibration.largest('sample_y_mm')} mm along the beam, and "
                f"the source is {self.source_axis_mm} mm away: correct the unit of sample_y_mm"
            )
        require_field(self)

    @property
    def kind(self) -> str:
        return "cone"

    @property
    def magnification(self) -> float:
        return self.source_detector_mm / self.source_axis_mm

    @property
    def voxel_mm(self) -> float:
        return self.pixel_mm / self.magnification

    @property
    def curvature(self) -> float:
        return 1 / self.source_axis_mm


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelGeometry(SetUp):
    """Describe a parallel-beam set-up, as at a synchrotron."""

    def __post_init__(self) -> None:
        SetUp.__post_init__(self)
        require_field(self)

    @property
    def kind(self) -> str:
        return "parallel"

    @property
    def voxel_mm(self) -> float:
        return self.pixel_mm

    @property
    def curvature(self) -> float:
        return 0.0


Geometry = ConeGeometry | ParallelGeometry
LENGTHS = ("pixel_mm", "axis_offset_mm", "detector_u_mm", "detector_v_mm")
KINDS: dict[str, type[ConeGeometry] | type[ParallelGeometry]] = {"cone": ConeGeometry, "parallel": ParallelGeometry}


def geometry_from_metadata(metadata: Mapping[str, Any]) -> Geometry:
    """Make the geometry that `to_metadata` described."""
    values = dict(metadata)
    kind = values.pop("kind", None)
    if kind not in tuple(KINDS):
        raise ValueError(f"geometry is {kind!r}: give one of {', '.join(KINDS)}")
    if isinstance(values.get("calibration"), Mapping):
        values["calibration"] = calibration_from_metadata(values["calibration"])
    try:
        return KINDS[kind](**values)
    except TypeError as error:
        raise ValueError(f"the {kind} geometry cannot be made from {sorted(values)}: {error}") from error


def _turn(axis: int, angle_rad: float) -> np.ndarray:
    """Return the right-handed turn (3, 3) about a coordinate axis."""
    following, last = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[following, following] = matrix[last, last] = np.cos(angle_rad)
    matrix[last, following] = np.sin(angle_rad)
    matrix[following, last] = -matrix[last, following]
    return matrix
