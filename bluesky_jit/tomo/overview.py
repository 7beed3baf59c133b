"""Look at the whole field of view coarsely, with next to no noise, to see where the sample is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.kernels.numba import NumbaKernel
from bluesky_jit.tomo.live import FilteredBackprojection
from bluesky_jit.tomo.reconstructor import Reconstructor

FEWEST = 4
"""Projections that two halves can be made of."""
POINTS = 64
"""Points across the field of view of a detector that sees it whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Hold the whole field of view, coarsely: float32 (nz, ny, nx) in 1/mm from every other projection each."""

    grid: Grid
    halves: tuple[np.ndarray, np.ndarray]


def make_overview(reconstructor: Reconstructor, *, points: int = POINTS) -> Overview | None:
    """Reconstruct what the window holds from large pixels, each the sum of many; None before there is anything.

    The filter turns pixels' noise into much more of it at fine detail, so that pixels summed before it leave far less
    than a mean of as many points of slices would.
    """
    binned = reconstructor.binned(points)
    if binned is None:
        return None
    geometry, n_projections = binned.geometry, len(binned.projections)
    if n_projections < FEWEST:
        return None
    # A detector of few rows has no large pixels; there the filter takes away what is finer.
    finer = max(1, geometry.n_u // points)
    # On this processor: it is far too little for another one.
    coarse = FilteredBackprojection(
        geometry, n_projections=n_projections, filter="hann", filter_cutoff=1 / finer, kernel=NumbaKernel()
    )
    for block in (binned.dark, binned.flat, binned.projections):
        coarse.push(block)
    coarse.settle(drained=True)
    voxel_mm, radius_mm, half_height_mm = finer * geometry.voxel_mm, geometry.radius_mm, geometry.half_height_mm
    across, high = (2 * int(extent // voxel_mm) + 1 for extent in (radius_mm, half_height_mm))
    grid = Grid.volume(voxel_mm=voxel_mm, shape=(high, across, across))
    splits = coarse.pairs((grid,))
    return None if splits is None else Overview(grid=grid, halves=(splits[0, 0, 0], splits[0, 1, 0]))
