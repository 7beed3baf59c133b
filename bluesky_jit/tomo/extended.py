"""Widen what the window's slots hold, for a detector that sees one side of a wide sample.

Beyond the detector's short side a filtered row is not zero: the ramp reaches there, and so do points of the sample.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bluesky_jit.tomo.field import reaches_mm
from bluesky_jit.tomo.geometry import Geometry

Margins = tuple[int, int]
"""Columns that a slot has more than the detector, to the left and to the right."""


def margins_of(geometry: Geometry) -> Margins:
    """Return the margins with which slots hold the whole field of view at every angle; none unless it is extended."""
    if not geometry.extended_field:
        return 0, 0
    left, right = reaches_mm(geometry)
    side = -1 if right > left else 1
    # What follows is seen from the short side, where x grows outwards.
    axis_mm = side * geometry.axis_offset_mm
    columns = (geometry.n_u if side > 0 else 0) - 0.5 - geometry.u_centre
    edge_mm = side * columns * geometry.voxel_mm
    lacking = int(np.ceil((_rim_mm(geometry, axis_mm, max(left, right)) - edge_mm) / geometry.voxel_mm)) + 1
    return (lacking, 0) if side < 0 else (0, lacking)


def _rim_mm(geometry: Geometry, axis_mm: float, radius_mm: float) -> float:
    """Return the x, measured at the axis, of the ray that touches a circle around the axis on its outer side."""
    wobble = 0.0
    if geometry.calibration:
        wobble = geometry.calibration.largest("sample_x_mm")
        wobble += geometry.calibration.largest("detector_u_mm") * geometry.voxel_mm / geometry.pixel_mm
    bend = np.cos(geometry.axis_tilt_rad) * geometry.curvature
    if bend == 0:
        return axis_mm + radius_mm + wobble
    # As seen from the source: where the axis is, and half of what the circle takes.
    half_angle = np.arcsin(radius_mm * bend / np.hypot(1, axis_mm * bend))
    return float(np.tan(np.arctan(axis_mm * bend) + half_angle) / bend) + wobble


def widened(geometry: Geometry, margins: Margins) -> Geometry:
    """Return the set-up with a detector that much wider, whose columns begin at the left margin."""
    left, right = margins
    if not (left or right):
        return geometry
    shift = (right - left) / 2 * geometry.pixel_mm
    return replace(geometry, n_u=geometry.n_u + left + right, detector_u_mm=geometry.detector_u_mm + shift)
