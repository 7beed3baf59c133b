"""The fast CPU kernel: one thread, no interpreter lock, any grid, any number of splits in one pass.

It works on tiles of a grid's plane, in three loops: where each voxel lands on the detector, the loads, the
interpolation. LLVM vectorises the first and the last; the loads in between are plain scalars, of which the processor
keeps many in flight (gathers are slower). Two neighbouring pixels are loaded as one 32-bit word.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, njit, types

from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import MIN_DEPTH, Jobs, Slots

TILE_ROWS = 32
TILE_COLUMNS = 64
CHUNK = TILE_ROWS * TILE_COLUMNS
MARGIN = 0.01
"""A tile nearer to its slot's edge, in pixels, takes the clamped loop: rounding may carry it over the edge."""
DEPTH_LIMIT = np.float32(MIN_DEPTH)
OPTIONS = {
    "nogil": True,
    "fastmath": {"contract", "nsz"},
    # Python's check for division by zero would keep the loops from being vectorised.
    "error_model": "numpy",
}
ZERO, ONE = np.float32(0), np.float32(1)


class NumbaKernel:
    """Backproject on the CPU in the calling thread."""

    def prepare(self) -> None:
        """Compile the kernel, or load it from the cache, before the first projection comes."""
        self.run(
            Jobs(
                projections=Slots(values=np.zeros((1, 3, 3), dtype=np.int16), scales=np.ones(1, dtype=np.float32)),
                matrices=np.zeros((1, 3, 4)),
                slots=np.zeros(1, dtype=np.int64),
                scales=np.zeros(1),
                splits=np.zeros(1, dtype=np.int64),
                n_splits=1,
                grids=(Grid.slice_xy(voxel_mm=1.0, shape=(1, 1)),),
            )
        )

    def run(self, jobs: Jobs, *, out: np.ndarray | None = None) -> np.ndarray:
        result = np.zeros(jobs.result_shape, dtype=np.float32) if out is None else out
        frames = np.array(
            [[grid.origin, grid.z_step, grid.y_step, grid.x_step] for grid in jobs.grids], dtype=np.float64
        )
        scales = np.asarray(jobs.scales, dtype=np.float64) * jobs.projections.scales[jobs.slots]
        _backproject(
            jobs.projections.values,
            np.ascontiguousarray(jobs.matrices, dtype=np.float64),
            np.ascontiguousarray(jobs.slots, dtype=np.int64),
            scales,
            np.ascontiguousarray(jobs.splits, dtype=np.int64),
            frames,
            result,
        )
        return result


# For the type checker: a caller leaves an intrinsic's first argument out.
intrinsic: Any = extending.intrinsic


@intrinsic
def _load_word(typing, base, offset):
    """Load int16 elements offset and offset + 1 after an address, as one (unaligned) 32-bit word."""

    def generate(context, builder, signature, arguments):
        address, index = arguments
        address = builder.add(address, builder.shl(builder.sext(index, ir.IntType(64)), ir.Constant(ir.IntType(64), 1)))
        word = builder.load(builder.inttoptr(address, ir.IntType(32).as_pointer()), typ=ir.IntType(32))
        word.align = 2
        return word

    return types.int32(types.uintp, types.int32), generate


@intrinsic
def _first(typing, word):
    """Return the first of the two int16 in a word (little-endian) as float32."""

    def generate(context, builder, signature, arguments):
        return builder.sitofp(builder.trunc(arguments[0], ir.IntType(16)), ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _second(typing, word):
    """Return the second of the two int16 in a word (little-endian) as float32."""

    def generate(context, builder, signature, arguments):
        return builder.sitofp(builder.ashr(arguments[0], ir.Constant(ir.IntType(32), 16)), ir.FloatType())

    return types.float32(types.int32), generate


@njit(cache=True, **OPTIONS)
def _backproject(values, matrices, slots, scales, splits, frames, result):
    """Add every projection into result (n_grids, n_splits, nz, ny, nx)."""
    n_grids, n_splits, nz, ny, nx = result.shape
    rows, columns = values.shape[1], values.shape[2]
    slot_bytes = np.uint64(2 * rows * columns)
    # One array in sections, at distances known to the compiler: with separate ones it needs too many overlap checks to
    # vectorise. work: column, row, two fractions, weight; words: offset, upper and lower pair of pixels.
    work = np.empty(5 * CHUNK, dtype=np.float32)
    words = np.empty(3 * CHUNK, dtype=np.int32)
    sums = np.empty((n_splits, CHUNK), dtype=np.float32)
    corner = np.empty(3)
    for g in range(n_grids):
        for k in range(nz):
            for first_row in range(0, ny, TILE_ROWS):
                tile_rows = min(TILE_ROWS, ny - first_row)
                for first_column in range(0, nx, TILE_COLUMNS):
                    tile_columns = min(TILE_COLUMNS, nx - first_column)
                    n = tile_rows * tile_columns
                    for j in range(tile_rows):
                        for i in range(tile_columns):
                            work[j * tile_columns + i] = i
                            work[CHUNK + j * tile_columns + i] = j
                    for axis in range(3):
                        corner[axis] = (
                            frames[g, 0, axis]
                            + k * frames[g, 1, axis]
                            + first_row * frames[g, 2, axis]
                            + first_column * frames[g, 3, axis]
                        )
                    sums[:, :n] = 0
                    for p in range(len(slots)):
                        base = np.uint64(values.ctypes.data) + slot_bytes * np.uint64(slots[p])
                        _add_projection(
                            base, rows, columns, matrices[p], scales[p], corner, frames[g], tile_rows, tile_columns,
                            work, words, sums[splits[p]],
                        )  # fmt: skip
                    for s in range(n_splits):
                        for j in range(tile_rows):
                            for i in range(tile_columns):
                                result[g, s, k, first_row + j, first_column + i] += sums[s, j * tile_columns + i]


@njit(forceinline=True, **OPTIONS)
def _add_projection(base, rows, columns, matrix, scale, corner, frame, tile_rows, tile_columns, work, words, total):
    """Add one projection, which lies at address base, to the sums of one tile."""
    u0, ui, uj = _along(matrix[0], corner, frame)
    v0, vi, vj = _along(matrix[1], corner, frame)
    w0, wi, wj = _along(matrix[2], corner, frame)
    left, right, top, bottom, nearest = np.inf, -np.inf, np.inf, -np.inf, np.inf
    for y in (0, tile_rows - 1):
        for x in (0, tile_columns - 1):
            w = w0 + x * wi + y * wj
            nearest = min(nearest, w)
            if w > MIN_DEPTH:
                u = (u0 + x * ui + y * uj) / w + 1
                v = (v0 + x * vi + y * vj) / w + 1
                left, right, top, bottom = min(left, u), max(right, u), min(top, v), max(bottom, v)
    in_front = nearest > MIN_DEPTH
    # A tile is flat and convex, so what it covers on the detector lies within its corners.
    if in_front and (right < 0 or bottom < 0 or left > columns - 1 or top > rows - 1):
        return
    inside = in_front and left > MARGIN and top > MARGIN and right < columns - 1 - MARGIN and bottom < rows - 1 - MARGIN
    n = tile_rows * tile_columns
    if inside:
        _locate(n, work, words, columns, scale, u0, ui, uj, v0, vi, vj, w0, wi, wj)
    else:
        _locate_clamped(n, work, words, rows, columns, scale, u0, ui, uj, v0, vi, vj, w0, wi, wj)
    for k in range(n):
        words[CHUNK + k] = _load_word(base, words[k])
        words[2 * CHUNK + k] = _load_word(base, np.int32(words[k] + columns))
    for k in range(n):
        x, y = work[2 * CHUNK + k], work[3 * CHUNK + k]
        a, b = _first(words[CHUNK + k]), _second(words[CHUNK + k])
        c, d = _first(words[2 * CHUNK + k]), _second(words[2 * CHUNK + k])
        upper = a + x * (b - a)
        lower = c + x * (d - c)
        total[k] += work[4 * CHUNK + k] * (upper + y * (lower - upper))


@njit(forceinline=True, **OPTIONS)
def _along(row, corner, frame):
    """Return a matrix row's value at the tile's corner, and its change a column and a row further."""
    start = row[0] * corner[0] + row[1] * corner[1] + row[2] * corner[2] + row[3]
    column = row[0] * frame[3, 0] + row[1] * frame[3, 1] + row[2] * frame[3, 2]
    line = row[0] * frame[2, 0] + row[1] * frame[2, 1] + row[2] * frame[2, 2]
    return start, column, line


@njit(forceinline=True, **OPTIONS)
def _locate(n, work, words, columns, scale, u0, ui, uj, v0, vi, vj, w0, wi, wj):
    """Find pixel, fractions and weight of each voxel of a tile that lies wholly on the detector."""
    fu0, fui, fuj = np.float32(u0), np.float32(ui), np.float32(uj)
    fv0, fvi, fvj = np.float32(v0), np.float32(vi), np.float32(vj)
    fw0, fwi, fwj = np.float32(w0), np.float32(wi), np.float32(wj)
    fscale, stride = np.float32(scale), np.int32(columns)
    for k in range(n):
        i, j = work[k], work[CHUNK + k]
        near = ONE / (fw0 + i * fwi + j * fwj)
        x = (fu0 + i * fui + j * fuj) * near + ONE
        y = (fv0 + i * fvi + j * fvj) * near + ONE
        column, row = np.int32(x), np.int32(y)
        words[k] = row * stride + column
        work[2 * CHUNK + k] = x - np.float32(column)
        work[3 * CHUNK + k] = y - np.float32(row)
        work[4 * CHUNK + k] = fscale * near * near


@njit(forceinline=True, **OPTIONS)
def _locate_clamped(n, work, words, rows, columns, scale, u0, ui, uj, v0, vi, vj, w0, wi, wj):
    """Do the same for a tile that is partly off the detector: there voxels read the border, which is zero."""
    fu0, fui, fuj = np.float32(u0), np.float32(ui), np.float32(uj)
    fv0, fvi, fvj = np.float32(v0), np.float32(vi), np.float32(vj)
    fw0, fwi, fwj = np.float32(w0), np.float32(wi), np.float32(wj)
    fscale, stride = np.float32(scale), np.int32(columns)
    last_x, last_y = np.float32(columns - 1), np.float32(rows - 1)
    last_column, last_row = np.int32(columns - 2), np.int32(rows - 2)
    for k in range(n):
        i, j = work[k], work[CHUNK + k]
        depth = fw0 + i * fwi + j * fwj
        near = ONE / depth if depth > DEPTH_LIMIT else ZERO
        x = min(max((fu0 + i * fui + j * fuj) * near + ONE, ZERO), last_x)
        y = min(max((fv0 + i * fvi + j * fvj) * near + ONE, ZERO), last_y)
        column = min(np.int32(x), last_column)
        row = min(np.int32(y), last_row)
        words[k] = row * stride + column
        work[2 * CHUNK + k] = x - np.float32(column)
        work[3 * CHUNK + k] = y - np.float32(row)
        work[4 * CHUNK + k] = fscale * near * near
