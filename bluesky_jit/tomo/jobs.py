"""The job table: what every backprojection kernel is asked, and the plain NumPy answer that defines it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import numpy as np

from bluesky_jit.tomo.grid import Grid

MIN_DEPTH = 1e-3
"""A point nearer to the source than this part of the way to the axis, or behind it, reads zero."""


class Priority(IntEnum):
    """Say which jobs go first where several wait for the same workers."""

    SHOWN = 0
    PAIRS = 1
    PREVIEW = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """Hold filtered projections as the kernels read them.

    values: int16 (n_slots, n_v + 2, n_u + 2) with a border of zeros, so that "outside" reads as zero;
    scales: float32 (n_slots,), the factor that turns a slot's integers back into numbers; versions: int64 (n_slots,),
    which the writer of a slot raises after it has written, so that a kernel with a copy of its own takes anew what has
    changed. None: nobody counts, and such a kernel takes every slot anew each time.
    """

    values: Any
    scales: Any
    versions: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """Ask for grids: each projection, times a signed scale, is added into its split of every grid.

    matrices: float64 (n, 3, 4), from the geometry, for pixels counted without the border;
    slots: int64 (n,), where each projection lies; scales: float64 (n,), its weight (negative takes it out again);
    splits: int64 (n,), which split it is added to; grids: all of one shape.
    """

    projections: Slots
    matrices: np.ndarray
    slots: np.ndarray
    scales: np.ndarray
    splits: np.ndarray
    n_splits: int
    grids: tuple[Grid, ...]
    priority: Priority = Priority.SHOWN

    @property
    def result_shape(self) -> tuple[int, int, int, int, int]:
        return (len(self.grids), self.n_splits, *self.grids[0].shape)


class Kernel(Protocol):
    """Backproject a job table into float32 (n_grids, n_splits, nz, ny, nx), or add it to an array of that kind."""

    def run(self, jobs: Jobs, *, out: np.ndarray | None = None) -> np.ndarray: ...


class ReferenceKernel:
    """Define the answer in float64 NumPy: bilinear in the detector, weight 1/w², zero outside."""

    def run(self, jobs: Jobs, *, out: np.ndarray | None = None) -> np.ndarray:
        result = np.zeros(jobs.result_shape, dtype=np.float64)
        for g, grid in enumerate(jobs.grids):
            points = np.concatenate([grid.points().reshape(-1, 3), np.ones((np.prod(grid.shape), 1))], axis=1)
            for matrix, slot, scale, split in zip(jobs.matrices, jobs.slots, jobs.scales, jobs.splits, strict=True):
                image = np.asarray(jobs.projections.values[slot], dtype=np.float64) * float(
                    jobs.projections.scales[slot]
                )
                uw, vw, w = matrix @ points.T
                inverse = np.where(w > MIN_DEPTH, 1 / np.where(w > MIN_DEPTH, w, 1), 0)
                values = _bilinear(image, vw * inverse + 1, uw * inverse + 1)
                result[g, split] += (scale * values * inverse**2).reshape(grid.shape)
        if out is None:
            return result.astype(np.float32)
        out += result.astype(np.float32)
        return out


def _bilinear(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Interpolate a zero-bordered image; a point outside its border reads zero."""
    n_rows, n_columns = image.shape
    rows = np.clip(rows, 0, n_rows - 1)
    columns = np.clip(columns, 0, n_columns - 1)
    r = np.minimum(rows.astype(np.int64), n_rows - 2)
    c = np.minimum(columns.astype(np.int64), n_columns - 2)
    fr, fc = rows - r, columns - c
    upper = image[r, c] * (1 - fc) + image[r, c + 1] * fc
    lower = image[r + 1, c] * (1 - fc) + image[r + 1, c + 1] * fc
    return upper * (1 - fr) + lower * fr
