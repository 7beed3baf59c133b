"""Sharpen a slice by moving the axis: a second opinion beside opposing views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter1d

from bluesky_jit.tomo.arcs import covered_arc
from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Jobs, Kernel, Priority, Slots
from bluesky_jit.tomo.ramp import filtered, make_filter
from bluesky_jit.tomo.weights import split_weights
from bluesky_jit.tomo.window import quantise

SMOOTHING_PX = 4.0
"""Views are smoothed first: where noise dips below zero it hides what a wrong axis does (measured on simulated runs of
1000 photons: a standard deviation of 1.5 pixels leaves errors of a pixel, 4 pixels less than 0.1)."""
STEPS_PX = np.arange(-4.0, 5.0)
POINTS = 160
"""Points along each side of the slice. They lie apart, since single points tell of the axis as much as their sum."""
INSIDE = 0.95
"""Part of the field of view that is looked at."""
SPLITS = 4
"""Parts of the projections that are sharpened apart: from how they differ the error is known."""
TIMID = 1.5
"""Deviations by leaving parts out come out too small by this: the parts see the same undersampling (measured on half
turns of 30 to 200 photons)."""
FITTED = 2
"""Steps on each side of the best one that the parabola goes through."""


def sharpest(
    row: np.ndarray, angles_rad: np.ndarray, geometry: Geometry, offset_mm: float, kernel: Kernel
) -> tuple[float, float] | None:
    """Find the axis offset (mm) near `offset_mm` that makes a slice of a row (n, n_u) sharpest, and its deviation (mm).

    Over half a turn a wrong axis makes crescents that dip below zero, and the sum of all negative values is least at
    the right one (Donath et al. 2006, JOSA A 23, 1048). Over a full turn it only blurs: there the slice's energy is
    largest, taken between parts of the projections with no noise in common. Returns None where neither has an extremum.
    """
    geometry = replace(geometry, n_v=1, detector_v_mm=0.0)
    start_px = (offset_mm - geometry.axis_offset_mm) / geometry.voxel_mm
    radius_mm = geometry.radius_mm - (abs(start_px) + STEPS_PX[-1]) * geometry.voxel_mm
    if radius_mm <= 0:
        return None
    turned = angles_rad - angles_rad.min()
    whole = covered_arc(turned, 2 * np.pi)
    half = not whole.closed
    arc = covered_arc(turned, geometry.period_rad if half else 2 * np.pi)
    if not arc.closed:
        return None
    splits = np.arange(len(row)) % SPLITS
    scales = split_weights(turned, splits, SPLITS, arc)
    projections = _filtered(gaussian_filter1d(row, SMOOTHING_PX, axis=-1, mode="nearest"), geometry)
    grid = Grid.slice_xy(voxel_mm=2 * radius_mm / POINTS, shape=(POINTS, POINTS))
    points = grid.points()[0]
    inside = np.hypot(points[..., 0], points[..., 1]) < INSIDE * radius_mm
    merit: Callable[[np.ndarray], np.ndarray] = negativity if half else shared_energy
    matrices = geometry.matrices(angles_rad)
    # An axis that is further to the right by a pixel is seen a column further to the right.
    here = np.zeros_like(matrices)
    here[:, 0, 3] = 1.0
    curves = []
    for step in STEPS_PX:
        jobs = Jobs(
            projections=projections,
            matrices=matrices + (start_px + step) * here,
            slots=np.arange(len(row)),
            scales=scales,
            splits=splits,
            n_splits=SPLITS,
            grids=(grid,),
            priority=Priority.PREVIEW,
        )
        curves.append(merit(kernel.run(jobs)[0, :, 0][:, inside]))
    found = _lowest(np.array(curves))
    if found is None:
        return None
    best, error = found
    return offset_mm + best * geometry.voxel_mm, error * geometry.voxel_mm


def negativity(images: np.ndarray) -> np.ndarray:
    """Return, for images (n, points) of parts of the projections, how much is below zero, (n,)."""
    return -np.minimum(images, 0).mean(axis=1)


def shared_energy(images: np.ndarray) -> np.ndarray:
    """Return minus the covariance of each image (n, points) with the others' sum, (n,): noise has no part in it."""
    centred = images - images.mean(axis=1, keepdims=True)
    return -(centred * (centred.sum(axis=0) - centred)).mean(axis=1)


def _lowest(curves: np.ndarray) -> tuple[float, float] | None:
    """Return where the sum of curves (n_steps, n) is lowest, in pixels, and the jackknife's deviation of it."""
    whole = _vertex(curves.sum(axis=1))
    without = [_vertex(np.delete(curves, k, axis=1).sum(axis=1)) for k in range(curves.shape[1])]
    if whole is None or any(place is None for place in without):
        return None
    n = curves.shape[1]
    places = np.array(without, dtype=np.float64)
    return whole, TIMID * float(np.sqrt((n - 1) / n * np.sum((places - places.mean()) ** 2)))


def _vertex(curve: np.ndarray) -> float | None:
    best = int(np.argmin(curve))
    if not FITTED <= best < len(curve) - FITTED:
        return None
    near = slice(best - FITTED, best + FITTED + 1)
    square, slope, _ = np.polyfit(STEPS_PX[near], curve[near], 2)
    return float(-slope / (2 * square)) if square > 0 else None


def _filtered(row: np.ndarray, geometry: Geometry) -> Slots:
    row_filter = make_filter(geometry)
    n, n_u = row.shape
    values = np.zeros((n, 3, n_u + 2), dtype=np.int16)
    scales = np.ones(n, dtype=np.float32)
    for k in range(n):
        scales[k] = quantise(filtered(row[k][None].astype(np.float32), row_filter), values[k])
    return Slots(values=values, scales=scales)
