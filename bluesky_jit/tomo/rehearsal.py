"""Reconstruct a tiny made-up scan, so that a run's first slices do not wait for loops to be compiled or loaded."""

from __future__ import annotations

import logging
import time

import numpy as np

from bluesky_jit.messages import FrameKind, ProjectionBlock
from bluesky_jit.tomo.geometry import ConeGeometry, Geometry, ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Kernel
from bluesky_jit.tomo.live import FilteredBackprojection

logger = logging.getLogger(__name__)

SIZE = 8
"""Pixels, points and projections each way: the least that every step can work with."""
NOTICEABLE_S = 2.0
"""It takes so long only where loops had to be compiled: 5 s then, and 0.03 s otherwise, on the machine of recon.md."""


def rehearse(kernel: Kernel) -> None:
    """Take flats and a turn in, and make slices and pairs, in a cone and in a parallel beam."""
    began = time.monotonic()
    for geometry in (
        ConeGeometry(n_u=SIZE, n_v=SIZE, pixel_mm=0.2, source_axis_mm=100.0, source_detector_mm=200.0),
        ParallelGeometry(n_u=SIZE, n_v=SIZE, pixel_mm=0.2),
    ):
        reconstruction = FilteredBackprojection(geometry, n_projections=SIZE, kernel=kernel)
        reconstruction.push(_block(geometry, "flat", 40_000))
        reconstruction.push(_block(geometry, "projection", 20_000))
        level = Grid.slice_xy(z_mm=0.0, voxel_mm=geometry.voxel_mm, shape=(SIZE, SIZE))
        upright = Grid.slice_xz(y_mm=0.0, voxel_mm=geometry.voxel_mm, shape=(SIZE, SIZE))
        # The second time, slices are brought up to date instead of made anew.
        for _ in range(2):
            reconstruction.slices((level, upright))
            later = _block(geometry, "projection", 20_000, first=SIZE)
            # As frames are that came in documents: loops are compiled for these by themselves.
            later.counts.flags.writeable = False
            reconstruction.push(later)
        reconstruction.pairs((level, upright))
    took_s = time.monotonic() - began
    if took_s > NOTICEABLE_S:
        logger.info("the reconstruction's loops were compiled for this processor in %.0f s; they are kept", took_s)


def _block(geometry: Geometry, kind: FrameKind, counts: int, *, first: int = 0) -> ProjectionBlock:
    numbers = np.arange(first, first + SIZE)
    return ProjectionBlock(
        run_uid="rehearsal",
        kind=kind,
        counts=np.full((SIZE, geometry.n_v, geometry.n_u), counts, np.uint16),
        acquisition=numbers,
        unique_ids=numbers,
        frame_times_s=numbers * 1.0,
        received_times_s=numbers * 1.0,
        angles_rad=2 * np.pi * numbers / SIZE,
        angle_source="same stream",
    )
