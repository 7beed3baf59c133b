"""Make every line count once: Parker's weights for part of a turn of a cone, a detector set off for a wide sample.

These weights apply before the filter; `weights.py` has those of the angles, after it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeGuard

import numpy as np

from bluesky_jit.tomo.arcs import SEAM_RAD, Arc
from bluesky_jit.tomo.geometry import ConeGeometry, Geometry

END_STEPS = 1.5
"""Steps by which a short scan may differ at either end: a lost projection, and half a step of an unsteady stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortScan:
    """Name the part of a turn, from start_rad on, over which Parker's weights make each line of a fan count once."""

    start_rad: float
    length_rad: float

    def differences_rad(self, other: Arc | ShortScan) -> tuple[float, float]:
        """Return how much another arc leaves out at the beginning and at the end; below 0 where it goes further."""
        begin = float(np.mod(other.start_rad - self.start_rad + np.pi, 2 * np.pi) - np.pi)
        return begin, self.length_rad - begin - other.length_rad

    def is_covered_by(self, arc: Arc) -> bool:
        """Say whether an arc has every projection that counts: those at the ends count next to nothing."""
        return arc.closed or max(self.differences_rad(arc)) <= END_STEPS * arc.spacing_rad


def shortest_arc(geometry: Geometry) -> float:
    """Return the least arc, in rad, that measures every line through the field of view; half a turn and the fan."""
    if not takes_short_scans(geometry):
        return geometry.period_rad
    distance = np.hypot(geometry.source_axis_mm, geometry.axis_offset_mm)
    return float(np.pi + 2 * np.arcsin(np.clip(geometry.radius_mm / distance, 0, 1)))


def takes_short_scans(geometry: Geometry) -> TypeGuard[ConeGeometry]:
    """Say whether less than the period can be enough: a fan that sees the whole sample, about an upright axis."""
    return isinstance(geometry, ConeGeometry) and not geometry.extended_field and geometry.axis_tilt_rad == 0


def short_scan_of(
    arc: Arc,
    geometry: Geometry,
    angles_rad: np.ndarray,
    acquisition: np.ndarray,
    *,
    present: ShortScan | None,
    planned_rad: float | None,
    drained: bool,
) -> ShortScan | None:
    """Say which short scan projections should be weighted for; None for a whole turn, or where none can be known yet.

    arc: what angles_rad (n,) cover; acquisition: int64 (n,), in order; present: the short scan that they are weighted
    for; planned_rad: the arc that the run is to cover, if known; drained: whether no more projections will come.
    """
    if arc.closed or len(angles_rad) < 2 or not takes_short_scans(geometry):
        return None
    if drained:
        found = ShortScan(start_rad=arc.start_rad, length_rad=arc.length_rad)
    elif planned_rad is not None and planned_rad < arc.period_rad - SEAM_RAD:
        direction = 1 if angles_rad[-1] >= angles_rad[0] else -1
        begin = float(angles_rad[0]) - direction * (int(acquisition[0]) + 0.5) * arc.spacing_rad
        found = ShortScan(start_rad=begin if direction > 0 else begin - planned_rad, length_rad=planned_rad)
    else:
        return None
    if found.length_rad < shortest_arc(geometry):
        return None
    # Where the stage does not keep its steps exactly, the arc moves a little with every projection.
    if present is not None and max(map(abs, present.differences_rad(found))) <= END_STEPS * arc.spacing_rad:
        return present
    return found


def row_weight(geometry: Geometry, angle_rad: float, scan: ShortScan | None) -> np.ndarray | None:
    """Return what each column of a projection counts, float64 (n_u,), before the filter; None where all count 1."""
    if geometry.extended_field:
        return offset_weight(geometry, angle_rad)
    if scan is None or not takes_short_scans(geometry):
        return None
    return parker_weight(geometry, angle_rad, scan)


def parker_weight(geometry: ConeGeometry, angle_rad: float, scan: ShortScan) -> np.ndarray:
    """Return each column's weight, float64 (n_u,) from 0 to 1, at one angle of a short scan.

    The line at angle β and fan angle γ is met again at β + π + 2γ from the other side, with −γ: the two weights sum to
    1 and fade smoothly to 0 at both ends of the arc (Parker 1982; Kak and Slaney, eq. 3.200). An arc longer than it
    need be is that of a wider fan (Silver 2000).
    """
    fan = fan_angles(geometry, angle_rad)
    half_fan = (scan.length_rad - np.pi) / 2
    beta = np.mod(angle_rad - scan.start_rad, 2 * np.pi)
    begins, ends = beta < 2 * (half_fan - fan), beta > np.pi - 2 * fan
    rising = np.sin(np.pi / 4 * beta / np.where(begins, half_fan - fan, 1)) ** 2
    falling = np.sin(np.pi / 4 * (scan.length_rad - beta) / np.where(ends, half_fan + fan, 1)) ** 2
    weight = np.where(begins, rising, np.where(ends, falling, 1.0))
    return weight if beta <= scan.length_rad else np.zeros(len(fan))


def fan_angles(geometry: ConeGeometry, angle_rad: float) -> np.ndarray:
    """Return the angle, float64 (n_u,) in rad, between each column's ray and the one through the axis at an angle.

    It grows with u: a ray's direction in the sample turns with angle_rad + fan angle.
    """
    columns = np.append(np.arange(geometry.n_u), _axis_column(geometry, angle_rad))
    angles = np.arctan((columns - geometry.u_centre) * geometry.voxel_mm / geometry.source_axis_mm)
    return angles[:-1] - angles[-1]


def _axis_column(geometry: Geometry, angle_rad: float) -> float:
    """Return the column where the axis is seen, with the shifts measured at that angle."""
    u, _, w = geometry.matrices(np.array([angle_rad]))[0, :, 3]
    return float(u / w)


def offset_weight(geometry: Geometry, angle_rad: float) -> np.ndarray:
    """Return each column's weight, float64 (n_u,) from 0 to 2, for a detector that sees half of a wide sample.

    Over a full turn, lines near the axis are met twice and those further out once: w(γ) + w(−γ) = 2, with a smooth
    step (Wang 2002) as wide as the overlap, which falls to 0 where the detector ends on its short side. The step is
    centred on where the axis is seen at this angle, and as wide as every angle leaves room for.
    """
    nominal = replace(geometry, calibration=None)
    if isinstance(geometry, ConeGeometry) and isinstance(nominal, ConeGeometry):
        from_axis, usual = (fan_angles(of, angle_rad) for of in (geometry, nominal))
    else:
        columns = np.arange(geometry.n_u)
        from_axis, usual = ((columns - _axis_column(of, angle_rad)) * geometry.voxel_mm for of in (geometry, nominal))
    long_side = 1 if usual[-1] + usual[0] >= 0 else -1
    overlap = -min(long_side * usual[0], long_side * usual[-1])
    if geometry.calibration:
        sway_mm = geometry.calibration.largest("sample_x_mm")
        sway_mm += geometry.calibration.largest("detector_u_mm") * geometry.voxel_mm / geometry.pixel_mm
        overlap -= sway_mm * (geometry.curvature or 1.0)
    if overlap <= 0:
        raise ValueError(
            "the detector does not see the rotation axis, so an extended field has a hole in the middle: "
            "move the detector (geometry.detector_u_mm) until it sees the axis"
        )
    return 1 + np.sin(np.pi / 2 * np.clip(long_side * from_axis / overlap, -1, 1))
