"""Estimate where the rotation axis is from what was measured: opposing views see the sample mirrored about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import erf, exp, sqrt
from typing import Literal

import numpy as np

from bluesky_jit.tomo.axis.pairs import match_pairs
from bluesky_jit.tomo.axis.seam import match_seam
from bluesky_jit.tomo.axis.search import search
from bluesky_jit.tomo.axis.sharpness import sharpest
from bluesky_jit.tomo.axis.views import Fan, Views
from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.jobs import Kernel

Evidence = Literal["opposing views", "seam of half a turn", "none"]

TRUSTED = 0.8
"""Confidence from which on an estimate may move the axis."""
WITHIN_PX = 0.5
"""An estimate nearer than this is right: a slice's edges are then no wider than its voxels."""
DISTINCT = 0.15
"""Scale of how far the best place must stand out: in noise the second-best falls short of it by a sixth, seldom by a
third, in a sample by half or more (tests/unit/tomo/test_axis.py)."""
CAUTION = 1e4
"""How much likelier than a normal distribution says noise is to agree by chance; and ..."""
UNRELATED_NATS = 100.0
"""... the log-likelihood that both sides of a seam must gain: noise gains tens (tests/unit/tomo/test_axis.py)."""
SMALLEST_ERROR_PX = 0.05
"""No axis is trusted to be known better: edges sampled by pixels mislead by as much (measured on simulated runs)."""
SHARPNESS_ERROR_PX = 0.1
"""What the sharpest slice is not trusted beyond: it leans to one side where edges are coarse."""
WORTH_SHARPENING_PX = 0.1
"""From this deviation on a slice is made to find the axis better."""
DISAGREEMENT = 3.0
"""Deviations apart from which on two results are not of one axis."""
FEWEST_VIEWS = 8
"""Chosen: a full turn of them has four opposing pairs, and the median of their gaps is still a typical step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisEstimate:
    """Say where the rotation axis is, and how sure that is.

    offset_mm: lab x of the axis (NaN when there is none); column: the pixel column that it projects to; error_px: one
    standard deviation; confidence: the probability, 0 to 1, that the axis lies within half a pixel; evidence: what it
    is from; sharpened: whether the sharpest slice had a part in it; reason: why it is no better.
    """

    offset_mm: float
    column: float
    error_px: float
    confidence: float
    evidence: Evidence
    sharpened: bool = False
    reason: str = ""

    @property
    def trusted(self) -> bool:
        """Say whether it is sure enough to move the axis."""
        return self.confidence >= TRUSTED


def part_within(error_px: float) -> float:
    """Return the part of a normal distribution of that standard deviation that lies within ± WITHIN_PX."""
    return erf(WITHIN_PX / (sqrt(2) * error_px))


def no_estimate(reason: str) -> AxisEstimate:
    """Return an estimate that says why there is none."""
    return AxisEstimate(
        offset_mm=np.nan, column=np.nan, error_px=np.inf, confidence=0.0, evidence="none", reason=reason
    )


def axis_of_scan(
    line_integral_rows: np.ndarray, angles_rad: np.ndarray, geometry: Geometry, *, kernel: Kernel | None = None
) -> AxisEstimate:
    """Estimate the axis of a stored scan; the same as `estimate_axis`, sharpened by the fastest kernel here."""
    if kernel is None:
        from bluesky_jit.tomo.kernels import choose

        kernel = choose()
    return estimate_axis(line_integral_rows, angles_rad, geometry, kernel=kernel)


def estimate_axis(
    sinogram_rows: np.ndarray, angles_rad: np.ndarray, geometry: Geometry, *, kernel: Kernel | None = None
) -> AxisEstimate:
    """Estimate the axis from line integrals (n_rows, n, n_u) at angles (n,).

    In a cone the rows are those near the plane of the central ray, where opposing rays meet. The geometry's own axis
    offset has no part in it. kernel: refines a doubtful result by the sharpness of a slice; without one it stays.
    """
    rows = np.asarray(sinogram_rows, dtype=np.float64)
    angles = np.asarray(angles_rad, dtype=np.float64)
    if rows.ndim != 3 or rows.shape[1:] != (len(angles), geometry.n_u):
        raise ValueError(
            f"the sinogram has shape {rows.shape}, for {len(angles)} angles and {geometry.n_u} columns: give line "
            "integrals (n_rows, n_angles, n_u)"
        )
    usable = np.isfinite(angles) & np.isfinite(rows).all(axis=(0, 2))
    rows, angles = rows[:, usable], angles[usable]
    if geometry.axis_tilt_rad:
        return no_estimate("the axis is tilted (axis_tilt_rad), so that no two views are each other's mirror image")
    if len(angles) < FEWEST_VIEWS:
        return no_estimate(f"there are {len(angles)} projections: {FEWEST_VIEWS} are the least")
    if geometry.calibration is not None:
        rows, geometry = _uncalibrated(rows, angles, geometry)
    views = Views.of(rows, angles, _fan_of(geometry))
    rough = search(views)
    if rough is None:
        return no_estimate("no two projections oppose each other with anything between them: turn by more than 180°")
    parallel = geometry.kind == "parallel"
    seam = parallel and not views.has_pairs
    if seam:
        found = match_seam(views, rough.column)
        related = 1 - exp(-max(0.0, found[2]) / UNRELATED_NATS) if found else 0.0
    else:
        found = match_pairs(views, rough.column)
        related = 1 - min(1.0, CAUTION * rough.chance)
    if found is None or not np.isfinite(found[1]):
        return no_estimate("opposing projections have nothing in common")
    column, error_px = found[0], max(found[1], SMALLEST_ERROR_PX)
    column, error_px, sharpened, reason = _sharpened(column, error_px, rows, angles, geometry, kernel)
    right_place = related * (1 - exp(-((rough.distinct / DISTINCT) ** 2)))
    confidence = right_place * part_within(error_px)
    if not reason and confidence < TRUSTED:
        doubt = "noise hides" if right_place > TRUSTED else "hardly any structure shows"
        reason = f"{doubt} where the axis is (± {error_px:.2f} pixels)"
    return AxisEstimate(
        offset_mm=float((column - geometry.u_centre) * geometry.voxel_mm),
        column=float(column),
        error_px=float(error_px),
        confidence=float(confidence),
        evidence="seam of half a turn" if seam else "opposing views",
        sharpened=sharpened,
        reason=reason,
    )


def _sharpened(
    column: float, error_px: float, rows: np.ndarray, angles: np.ndarray, geometry: Geometry, kernel: Kernel | None
) -> tuple[float, float, bool, str]:
    """Return column, deviation, whether a slice's sharpness had a part in them, and what speaks against them.

    Both results count by their variances. A slice that has no sharpest place near says nothing.
    """
    if kernel is None or geometry.extended_field or error_px < WORTH_SHARPENING_PX:
        return column, error_px, False, ""
    row = rows[int(np.argmax(np.diff(rows, axis=-1).var(axis=(1, 2))))]
    found = sharpest(row, angles, geometry, (column - geometry.u_centre) * geometry.voxel_mm, kernel)
    if found is None:
        return column, error_px, False, ""
    other = geometry.u_centre + found[0] / geometry.voxel_mm
    other_error = max(found[1] / geometry.voxel_mm, SHARPNESS_ERROR_PX)
    apart = abs(other - column)
    if apart > DISAGREEMENT * np.hypot(error_px, other_error):
        reason = f"the sharpest slice wants the axis {apart:.1f} pixels away"
        return column, float(np.hypot(error_px, apart)), False, reason
    weights = np.array([error_px**-2, other_error**-2])
    return float(np.average([column, other], weights=weights)), float(weights.sum() ** -0.5), True, ""


def _fan_of(geometry: Geometry) -> Fan:
    distance = 1 / (geometry.curvature * geometry.voxel_mm) if geometry.curvature else np.inf
    return Fan(n_u=geometry.n_u, central=geometry.u_centre, distance_px=distance)


def _uncalibrated(rows: np.ndarray, angles: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, Geometry]:
    """Shift each view by what the calibration measured, to where it would lie without."""
    plain = replace(geometry, calibration=None)

    def columns(of: Geometry) -> np.ndarray:
        matrices = of.matrices(angles)
        return matrices[:, 0, 3] / matrices[:, 2, 3]

    shifts = columns(geometry) - columns(plain)
    at = np.arange(geometry.n_u)
    return np.stack([[np.interp(at + s, at, view) for view, s in zip(row, shifts, strict=True)] for row in rows]), plain
