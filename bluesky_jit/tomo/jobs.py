"""The job table: what every backprojection kernel is asked, and the plain NumPy answer that defines it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        nz, ny, nx = self.grids[0].shape if self.grids else (0, 0, 0)
        return (len(self.grids), self.n_splits, nz, ny, nx)


class Pool(Protocol):
    """Run a kernel's tasks, of which none waits for another: at once in several threads, or one after the other."""

    def run(self, tasks: Sequence[Callable[[], object]], priority: Priority) -> None:
        """Return when all tasks are done; raise what the first one to fail raised, when the others have ended."""
        ...


class CallingThread:
    """Run tasks one after the other in the thread that asks."""

    def run(self, tasks: Sequence[Callable[[], object]], priority: Priority) -> None:
        for task in tasks:
            task()


class Kernel(Protocol):
    """Backproject a job table into float32 (n_grids, n_splits, nz, ny, nx), or add it to an array of that kind."""

    def run(self, jobs: Jobs, *, out: np.ndarray | None = None) -> np.ndarray: ...


def result_for(jobs: Jobs, out: np.ndarray | None) -> np.ndarray:
    """Return the array that a kernel adds its answer to: `out`, or zeros of the result's shape.

    Raises ValueError for a table that cannot be right: compiled loops would read whatever memory it leads them to.
    """
    n, (n_slots, *_) = len(jobs.slots), jobs.projections.values.shape
    lengths = {name: len(getattr(jobs, name)) for name in ("matrices", "slots", "scales", "splits")}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns of a job table are of different lengths, {lengths}: give one row a projection")
    if n and not np.isfinite(jobs.matrices).all():
        raise ValueError("the job table's matrices hold numbers that are not finite: check the geometry and the angles")
    if len({grid.shape for grid in jobs.grids}) > 1:
        shapes = sorted({grid.shape for grid in jobs.grids})
        raise ValueError(f"grids of shapes {shapes} are in one job table: give one table for each shape")
    for name, most, what in (("slots", n_slots, "slots in the store"), ("splits", jobs.n_splits, "splits")):
        column = getattr(jobs, name)
        if n and (int(np.min(column)) < 0 or int(np.max(column)) >= most):
            raise ValueError(
                f"{name} run from {np.min(column)} to {np.max(column)} and there are {most} {what}: "
                f"give numbers from 0 to {most - 1}"
            )
    if out is None:
        return np.zeros(jobs.result_shape, dtype=np.float32)
    if out.shape != jobs.result_shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise ValueError(
            f"out is {out.dtype} {out.shape}, {'' if out.flags.c_contiguous else 'not '}contiguous: "
            f"give contiguous float32 {jobs.result_shape}"
        )
    return out


class ReferenceKernel:
    """Define the answer in float64 NumPy: bilinear in the detector, weight 1/w², zero outside."""

    def run(self, jobs: Jobs, *, out: np.ndarray | None = None) -> np.ndarray:
        result = result_for(jobs, out)
        for g, grid in enumerate(jobs.grids):
            exact = np.zeros(result.shape[1:])
            # Plane by plane, so that a volume needs no more memory than its result.
            for k in range(grid.shape[0]):
                points = grid.points_of(_plane_indices(grid.shape, k))
                for matrix, slot, scale, split in zip(jobs.matrices, jobs.slots, jobs.scales, jobs.splits, strict=True):
                    value = _projected(jobs.projections, slot, matrix, points)
                    exact[split, k] += (scale * value).reshape(grid.shape[1:])
            result[g] += exact.astype(np.float32)
        return result


def _plane_indices(shape: tuple[int, int, int], k: int) -> np.ndarray:
    """Return the indices (n, 3) of plane k, in (k, j, i) order."""
    j, i = np.indices(shape[1:]).reshape(2, -1)
    return np.stack([np.full_like(j, k), j, i], axis=1)


def _projected(projections: Slots, slot: int, matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return what points (n, 3) read from one projection, float64 (n,)."""
    image = np.asarray(projections.values[slot], dtype=np.float64) * float(projections.scales[slot])
    uw, vw, w = matrix[:, :3] @ points.T + matrix[:, 3:]
    inverse = np.where(w > MIN_DEPTH, 1 / np.where(w > MIN_DEPTH, w, 1), 0)
    return _bilinear(image, vw * inverse + 1, uw * inverse + 1) * inverse**2


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
