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
    """Return the margins with which slots reach as far to both sides of the axis; none unless the field is extended."""
    if not geometry.extended_field:
        return 0, 0
    left, right = reaches_mm(geometry)
    # Towards the source a row is seen magnified; twice the difference of the sides is what the far half turn needs.
    lacking = int(np.ceil(abs(right - left) / geometry.voxel_mm)) + 1
    return (lacking, 0) if right > left else (0, lacking)


def widened(geometry: Geometry, margins: Margins) -> Geometry:
    """Return the set-up with a detector that much wider, whose columns begin at the left margin."""
    left, right = margins
    if not (left or right):
        return geometry
    shift = (right - left) / 2 * geometry.pixel_mm
    return replace(geometry, n_u=geometry.n_u + left + right, detector_u_mm=geometry.detector_u_mm + shift)
