"""The fast CPU kernel: it cuts a job table into tasks for a pool of threads, each of them some tiles of the result.

`projective.py` has the loops for any geometry, `lines.py` those for horizontal slices of a parallel beam, `lanes.py`
the vectors that both are written with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import CallingThread, Jobs, Pool, Slots, result_for
from bluesky_jit.tomo.kernels.lines import backproject_lines, read_lines
from bluesky_jit.tomo.kernels.projective import backproject, tile_shape

TASK_UPDATES = 2**20
"""Voxel-angle updates in a task, about a millisecond: so long a more urgent job waits at most."""
LINES_BYTES = 2**23
"""Memory for lines at a time: they are read again for every tile, so they should stay in a cache."""
LEVEL = 1e-4
"""Change of the detector row over a plane, in pixels, below which the plane reads one line."""


class NumbaKernel:
    """Backproject on the CPU; any threads may ask."""

    def __init__(self, pool: Pool | None = None) -> None:
        """pool: where tasks run; by default in the calling thread."""
        self._pool = pool or CallingThread()

    def prepare(self) -> None:
        """Compile the loops, or load them from the cache, before the first projection comes."""
        for row_w in ((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)):
            self.run(
                Jobs(
                    projections=Slots(values=np.zeros((1, 3, 3), dtype=np.int16), scales=np.ones(1, dtype=np.float32)),
                    matrices=np.array([[[0.0] * 4, [0.0] * 4, row_w]]),
                    slots=np.zeros(1, dtype=np.int64),
                    scales=np.zeros(1),
                    splits=np.zeros(1, dtype=np.int64),
                    n_splits=1,
                    grids=(Grid.slice_xy(voxel_mm=1.0, shape=(2, 2)),),
                )
            )

    def run(self, jobs: Jobs, *, out: np.ndarray | None = None) -> np.ndarray:
        result = result_for(jobs, out)
        if not len(jobs.slots) or not result.size:
            return result
        table = _Table.of(jobs)
        if _reads_lines(jobs, table):
            for g, grid in enumerate(jobs.grids):
                for k in range(grid.shape[0]):
                    self._add_plane(jobs, table, grid, k, result[g, :, k])
            return result
        frames = np.array(
            [[grid.origin, grid.z_step, grid.y_step, grid.x_step] for grid in jobs.grids], dtype=np.float64
        )
        run = partial(
            backproject, table.values, table.matrices, table.slots, table.scales, table.splits, frames, result
        )
        self._run_tiles(jobs, run, n_planes=len(jobs.grids) * jobs.grids[0].shape[0], n=len(table.slots))
        return result

    def _add_plane(self, jobs: Jobs, table: _Table, grid: Grid, k: int, plane: np.ndarray) -> None:
        """Add all projections to plane k of a grid, (n_splits, ny, nx), so many lines at a time as a cache holds."""
        corner = np.append(grid.points_of(np.array([[k, 0, 0]]))[0], 1.0)
        steps = np.stack([corner, np.array([*grid.x_step, 0.0]), np.array([*grid.y_step, 0.0])], axis=1)
        columns_at, rows_at = table.matrices[:, 0] @ steps, table.matrices[:, 1] @ corner + 1
        columns_at[:, 0] += 1
        n_columns = table.values.shape[2]
        most = max(1, LINES_BYTES // (np.dtype(np.float32).itemsize * n_columns))
        for start in range(0, len(table.slots), most):
            part = slice(start, start + most)
            lines = np.empty((len(table.slots[part]), n_columns), dtype=np.float32)
            read_lines(table.values, table.slots[part], table.scales[part], rows_at[part], lines)
            run = partial(backproject_lines, lines, columns_at[part], table.splits[part], plane)
            self._run_tiles(jobs, run, n_planes=1, n=len(lines))

    def _run_tiles(self, jobs: Jobs, run: Callable[[int, int], object], *, n_planes: int, n: int) -> None:
        """Run all tiles of some planes, in tasks of about the same work; run takes the first tile and the end."""
        _, ny, nx = jobs.grids[0].shape
        rows, columns = tile_shape(ny, nx)
        n_tiles = n_planes * -(-ny // rows) * -(-nx // columns)
        n_tasks = min(n_tiles, -(-n_planes * ny * nx * n // TASK_UPDATES))
        edges = [n_tiles * task // n_tasks for task in range(n_tasks + 1)]
        tasks = [partial(run, first, end) for first, end in pairwise(edges)]
        # A job of one task is over before another thread has taken it.
        pool = self._pool if n_tasks > 1 else CallingThread()
        pool.run(tasks, jobs.priority)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """Hold a job table's columns as the loops take them; scales: with those of the slots."""

    values: np.ndarray
    matrices: np.ndarray
    slots: np.ndarray
    scales: np.ndarray
    splits: np.ndarray

    @classmethod
    def of(cls, jobs: Jobs) -> _Table:
        slots = np.ascontiguousarray(jobs.slots, dtype=np.int64)
        return cls(
            values=jobs.projections.values,
            matrices=np.ascontiguousarray(jobs.matrices, dtype=np.float64),
            slots=slots,
            scales=np.asarray(jobs.scales, dtype=np.float64) * jobs.projections.scales[slots],
            splits=np.ascontiguousarray(jobs.splits, dtype=np.int64),
        )


def _reads_lines(jobs: Jobs, table: _Table) -> bool:
    """Tell whether every plane reads one line of each slot, and has so many voxels that it pays."""
    _, ny, nx = jobs.grids[0].shape
    if ny * nx < table.values.shape[2] or not (table.matrices[:, 2] == (0.0, 0.0, 0.0, 1.0)).all():
        return False
    return all(
        np.abs(table.matrices[:, 1, :3] @ np.array(step)).max() * count < LEVEL
        for grid in jobs.grids
        for step, count in ((grid.x_step, nx), (grid.y_step, ny))
    )
