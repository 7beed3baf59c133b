"""Lay job tables out as the GPU kernel reads them, and cut those that its memory does not hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Jobs

BLOCK_THREADS = 256
"""Threads of a block: eight warps, of which every architecture holds several blocks at a time."""
WARP = 32
MOST_RESULTS = 2**31 - 1
"""Most values of one launch: the blocks of a launch are counted in 31 bits, and each has a value at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Lay a job table out as the device reads it.

    rays: float32 (n_grids, n, 3, 4), for each projection u·w, v·w and w at the grid's central voxel and their change a
    voxel further along x, y and z, with u and v counted from the slot's central pixel; scales: float32 (n,) and slots:
    int32 (n,), ordered by split; starts: int32 (n_splits + 1,), where each split begins; block: threads along x and y.
    """

    rays: np.ndarray
    scales: np.ndarray
    slots: np.ndarray
    starts: np.ndarray
    block: tuple[int, int]
    n_blocks: int

    @classmethod
    def of(cls, jobs: Jobs) -> Launch:
        """Lay out all of a job table."""
        n_grids, n_splits, nz, ny, nx = jobs.result_shape
        order = np.argsort(jobs.splits, kind="stable")
        slots = np.asarray(jobs.slots, dtype=np.int64)[order]
        scales = np.asarray(jobs.scales, dtype=np.float64)[order] * np.asarray(jobs.projections.scales)[slots]
        _, rows, columns = jobs.projections.values.shape
        block_x = min(WARP, nx)
        block_y = min(BLOCK_THREADS // block_x, ny)
        return cls(
            rays=_rays(np.asarray(jobs.matrices, dtype=np.float64)[order], jobs.grids, rows, columns),
            scales=scales.astype(np.float32),
            slots=slots.astype(np.int32),
            starts=np.concatenate([[0], np.cumsum(np.bincount(jobs.splits, minlength=n_splits))]).astype(np.int32),
            block=(block_x, block_y),
            n_blocks=n_grids * n_splits * nz * -(-ny // block_y) * -(-nx // block_x),
        )


def _rays(matrices: np.ndarray, grids: tuple[Grid, ...], rows: int, columns: int) -> np.ndarray:
    """Return float32 (n_grids, n, 3, 4), made in float64."""
    n, n_grids = len(matrices), len(grids)
    steps = np.array([(grid.x_step, grid.y_step, grid.z_step) for grid in grids])
    middle = np.array([size // 2 for size in reversed(grids[0].shape)], dtype=np.float64)
    frames = np.zeros((4, n_grids, 4))
    frames[:3, :, 0] = (np.array([grid.origin for grid in grids]) + middle @ steps).T
    frames[:3, :, 1:] = steps.transpose(2, 0, 1)
    frames[3, :, 0] = 1
    rays = (matrices.reshape(n * 3, 4) @ frames.reshape(4, n_grids * 4)).reshape(n, 3, n_grids, 4)
    # Matrices count pixels without the border, which is one pixel wide.
    rays[:, 0] -= (columns // 2 - 1) * rays[:, 2]
    rays[:, 1] -= (rows // 2 - 1) * rays[:, 2]
    return np.ascontiguousarray(rays.transpose(2, 0, 1, 3), dtype=np.float32)


def pieces(jobs: Jobs, most_bytes: int) -> Iterator[tuple[Jobs, tuple[slice, ...]]]:
    """Cut a job table into tables that take most_bytes on the device, each with its place in the result.

    Grids stay whole while one fits; a larger one is cut into slabs, and a slice that is too large into strips.
    """
    n_grids, n_splits, nz, ny, nx = jobs.result_shape
    most_bytes = min(most_bytes, MOST_RESULTS * np.dtype(np.float32).itemsize)
    row_bytes = n_splits * nx * np.dtype(np.float32).itemsize
    ray_bytes = len(jobs.slots) * 12 * np.dtype(np.float32).itemsize
    grid_bytes = nz * ny * row_bytes + ray_bytes
    if grid_bytes <= most_bytes:
        step = most_bytes // grid_bytes
        for first in range(0, n_grids, step):
            yield replace(jobs, grids=jobs.grids[first : first + step]), (slice(first, first + step),)
        return
    n_rows = max(1, (most_bytes - ray_bytes) // row_bytes)
    depth, height = max(1, n_rows // ny), min(ny, n_rows)
    for g, grid in enumerate(jobs.grids):
        for k in range(0, nz, depth):
            for j in range(0, ny, height):
                strip = replace(
                    grid,
                    origin=tuple(grid.points_of(np.array([[k, j, 0]]))[0]),
                    shape=(min(depth, nz - k), min(height, ny - j), nx),
                )
                where = (slice(g, g + 1), slice(None), slice(k, k + depth), slice(j, j + height))
                yield replace(jobs, grids=(strip,)), where
