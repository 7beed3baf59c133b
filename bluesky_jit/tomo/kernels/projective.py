"""The loops of the CPU kernel for any geometry: one thread, no interpreter lock, any grid, any number of splits.

They work on tiles of a grid's plane, and in a tile on blocks of voxels, in three steps: where each voxel lands on the
detector, the loads, the interpolation. The first and the last are vectors (lanes.py). The loads in between are plain
scalars, of which the processor keeps many in flight. See docs/explanations/kernel.md.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from bluesky_jit.tomo.jobs import MIN_DEPTH
from bluesky_jit.tomo.kernels.lanes import (
    LANES,
    OPTIONS,
    VECTOR_BYTES,
    aligned,
    as_floats,
    copy_int16_pair,
    each,
    first_halves,
    greater,
    lesser,
    lesser_integers,
    load_floats,
    load_integers,
    prefetch,
    second_halves,
    store,
    truncated,
    zero_unless_above,
)

TILE_ROWS = 32
TILE_VOXELS = 2048
"""Voxels in a tile: its positions and sums stay in the first-level cache."""
BLOCK = 256
"""Voxels in a block: short enough that the loads of one go on beside the arithmetic of the next."""
BLOCK_BYTES = 4 * BLOCK
MARGIN = 0.01
"""A tile nearer to its slot's edge, in pixels, takes the clamped loop: rounding may carry it over the edge."""
PREFETCHED_ROWS = 64
"""Rows of a slot that are asked for ahead, two cache lines each: 8 kB, which the first-level cache has room for."""


@njit(cache=True, **OPTIONS)
def tile_shape(ny, nx):
    """Return rows and columns of the tiles that a plane is cut into; the last ones may be smaller."""
    rows = min(ny, TILE_ROWS)
    return rows, min(nx, TILE_VOXELS // rows)


@njit(forceinline=True, **OPTIONS)
def place(tile, n_down, n_across, rows, columns, ny, nx):
    """Return the plane that a tile lies in, its first row and column, and how many it has of each."""
    plane, rest = tile // (n_down * n_across), tile % (n_down * n_across)
    first_row, first_column = rest // n_across * rows, rest % n_across * columns
    return plane, first_row, first_column, min(rows, ny - first_row), min(columns, nx - first_column)


@njit(forceinline=True, **OPTIONS)
def number_voxels(positions, columns):
    """Write each voxel's column and row within a tile, float32 (2 · TILE_VOXELS,), for tiles so many columns wide."""
    row, column = 0, 0
    for k in range(TILE_VOXELS):
        positions[k], positions[TILE_VOXELS + k] = column, row
        column += 1
        if column == columns:
            row, column = row + 1, 0


@njit(forceinline=True, **OPTIONS)
def add_tile(sums, first_row, first_column, rows, columns, plane):
    """Add sums, in the order of a tile's voxels, to their place in a plane (ny, nx)."""
    for j in range(rows):
        line = plane[first_row + j, first_column : first_column + columns]
        line += sums[j * columns : (j + 1) * columns]


@njit(cache=True, **OPTIONS)
def backproject(values, matrices, slots, scales, splits, frames, result, first_tile, last_tile):
    """Add every projection to some tiles of result (n_grids, n_splits, nz, ny, nx).

    values: int16 (n_slots, n_v + 2, n_u + 2); scales: float64 (n,), the slots' own included; frames: float64
    (n_grids, 4, 3), each grid's origin and z, y and x steps.
    """
    _, n_splits, nz, ny, nx = result.shape
    rows, columns = values.shape[1], values.shape[2]
    store_address, slot_bytes = np.int64(values.ctypes.data), np.int64(values.strides[0])
    tile_rows, tile_columns = tile_shape(ny, nx)
    n_down, n_across = -(-ny // tile_rows), -(-nx // tile_columns)
    room, positions = aligned(2 * TILE_VOXELS // LANES)
    position_values = room[(positions - np.int64(room.ctypes.data)) // 4 :]
    sums_room, sums = aligned(n_splits * TILE_VOXELS // LANES)
    sum_values = sums_room[(sums - np.int64(sums_room.ctypes.data)) // 4 :]
    work_room, work = aligned(6 * BLOCK // LANES)
    corner = np.empty(3)
    numbered = 0
    for tile in range(first_tile, last_tile):
        plane, first_row, first_column, own_rows, own_columns = place(
            tile, n_down, n_across, tile_rows, tile_columns, ny, nx
        )
        g, k = plane // nz, plane % nz
        if own_columns != numbered:
            number_voxels(position_values, own_columns)
            numbered = own_columns
        for axis in range(3):
            corner[axis] = (
                frames[g, 0, axis]
                + k * frames[g, 1, axis]
                + first_row * frames[g, 2, axis]
                + first_column * frames[g, 3, axis]
            )
        sum_values[: n_splits * TILE_VOXELS] = 0
        following = _footprint(matrices[0], corner, frames[g], own_rows, own_columns)
        for p in range(len(slots)):
            footprint = following
            if p + 1 < len(slots):
                # What the next projection reads comes while this one is added.
                following = _footprint(matrices[p + 1], corner, frames[g], own_rows, own_columns)
                _prefetch(store_address + slot_bytes * slots[p + 1], rows, columns, following[1])
            _add_projection(
                store_address + slot_bytes * slots[p], rows, columns, scales[p], footprint,
                own_rows, own_columns, positions, work, sums + 4 * TILE_VOXELS * splits[p],
            )  # fmt: skip
        for s in range(n_splits):
            add_tile(
                sum_values[s * TILE_VOXELS : (s + 1) * TILE_VOXELS],
                first_row, first_column, own_rows, own_columns, result[g, s, k],
            )  # fmt: skip
    # What the addresses point into lives until here.
    return room[0] + sums_room[0] + work_room[0]


@njit(forceinline=True, **OPTIONS)
def _blocks(tile_rows, tile_columns):
    """Return how many blocks, all of one length, a tile is cut into, and their length in vectors.

    Blocks of full length would make a small patch spend much of its time on what the last one has too many.
    """
    n_blocks = -(-tile_rows * tile_columns // BLOCK)
    return n_blocks, -(-tile_rows * tile_columns // (n_blocks * LANES))


@njit(forceinline=True, **OPTIONS)
def _footprint(matrix, corner, frame, tile_rows, tile_columns):
    """Return how a tile's voxels reach the detector, u, v and w, and the part of the slot that their blocks cover.

    The part is left, right, top and bottom, in pixels, and the depth of the nearest voxel.
    """
    u0, ui, uj = _along(matrix[0], corner, frame)
    v0, vi, vj = _along(matrix[1], corner, frame)
    w0, wi, wj = _along(matrix[2], corner, frame)
    n_blocks, n_vectors = _blocks(tile_rows, tile_columns)
    # The last block goes on into rows below the tile, whose sums nobody reads.
    last_row = -(-n_blocks * n_vectors * LANES // tile_columns) - 1
    left, right, top, bottom, nearest = np.inf, -np.inf, np.inf, -np.inf, np.inf
    for y in (0, last_row):
        for x in (0, tile_columns - 1):
            w = w0 + x * wi + y * wj
            nearest = min(nearest, w)
            if w > MIN_DEPTH:
                u = (u0 + x * ui + y * uj) / w + 1
                v = (v0 + x * vi + y * vj) / w + 1
                left, right, top, bottom = min(left, u), max(right, u), min(top, v), max(bottom, v)
    return ((u0, ui, uj), (v0, vi, vj), (w0, wi, wj)), (left, right, top, bottom, nearest)


@njit(forceinline=True, **OPTIONS)
def _prefetch(slot, rows, columns, covered):
    """Ask for the two ends of each row of a slot that a small tile covers; the processor finds longer rows itself."""
    left, right, top, bottom, nearest = covered
    whole = nearest > MIN_DEPTH and left >= 0 and top >= 0 and right < columns - 1 and bottom < rows - 1
    if whole and bottom - top < PREFETCHED_ROWS:
        for row in range(int(top), int(bottom) + 2):
            prefetch(slot + 2 * (row * columns + int(left)))
            prefetch(slot + 2 * (row * columns + int(right) + 1))


@njit(forceinline=True, **OPTIONS)
def _add_projection(slot, rows, columns, scale, footprint, tile_rows, tile_columns, positions, work, total):
    """Add one projection, whose slot lies at an address, to the sums of one tile, which lie at another."""
    ((u0, ui, uj), (v0, vi, vj), (w0, wi, wj)), (left, right, top, bottom, nearest) = footprint
    n_blocks, n_vectors = _blocks(tile_rows, tile_columns)
    in_front = nearest > MIN_DEPTH
    # A tile is flat and convex, so what it covers on the detector lies within its corners.
    if in_front and (right < 0 or bottom < 0 or left > columns - 1 or top > rows - 1):
        return
    inside = in_front and left > MARGIN and top > MARGIN and right < columns - 1 - MARGIN and bottom < rows - 1 - MARGIN
    # From the middle of the slot, where single precision places a pixel best.
    middle_u, middle_v = (columns - 1) / 2, (rows - 1) / 2
    shift_u, shift_v = middle_u - 1, middle_v - 1
    row_u = _row(u0 - shift_u * w0, ui - shift_u * wi, uj - shift_u * wj)
    row_v = _row(v0 - shift_v * w0, vi - shift_v * wi, vj - shift_v * wj)
    row_w = _row(w0, wi, wj)
    middle = each(np.float32(middle_u)), each(np.float32(middle_v))
    factor, stride = each(np.float32(scale)), each(np.int32(columns))
    for block in range(n_blocks):
        done = block * n_vectors * VECTOR_BYTES
        if inside:
            _locate(n_vectors, positions + done, work, stride, factor, row_u, row_v, row_w, middle)
        else:
            _locate_clamped(
                n_vectors, positions + done, work, rows, columns, stride, factor, row_u, row_v, row_w, middle
            )
        # One row after the other: stores that take turns between two places cost twice as much.
        load_pairs(n_vectors, work + BLOCK_BYTES, slot, work)
        load_pairs(n_vectors, work + 2 * BLOCK_BYTES, slot + 2 * columns, work)
        _interpolate(n_vectors, work, total + done)


@njit(forceinline=True, **OPTIONS)
def _along(row, corner, frame):
    """Return a matrix row's value at the tile's corner, and its change a column and a row further."""
    start = row[0] * corner[0] + row[1] * corner[1] + row[2] * corner[2] + row[3]
    column = row[0] * frame[3, 0] + row[1] * frame[3, 1] + row[2] * frame[3, 2]
    line = row[0] * frame[2, 0] + row[1] * frame[2, 1] + row[2] * frame[2, 2]
    return start, column, line


@njit(forceinline=True, **OPTIONS)
def _row(start, column, line):
    return each(np.float32(start)), each(np.float32(column)), each(np.float32(line))


@njit(forceinline=True, **OPTIONS)
def _locate(n_vectors, positions, work, stride, factor, row_u, row_v, row_w, middle):
    """Find offset, fractions and weight of each voxel of a block that lies wholly on the detector.

    work: the address of a block's offsets, upper and lower pairs of pixels, two fractions and weights, one after the
    other.
    """
    one = each(np.float32(1))
    for k in range(0, n_vectors * VECTOR_BYTES, VECTOR_BYTES):
        i, j = load_floats(positions + k), load_floats(positions + 4 * TILE_VOXELS + k)
        near = one / (row_w[0] + i * row_w[1] + j * row_w[2])
        x = (row_u[0] + i * row_u[1] + j * row_u[2]) * near + middle[0]
        y = (row_v[0] + i * row_v[1] + j * row_v[2]) * near + middle[1]
        column, row = truncated(x), truncated(y)
        _keep(work + k, row * stride + column, x - as_floats(column), y - as_floats(row), factor * near * near)


@njit(forceinline=True, **OPTIONS)
def _locate_clamped(n_vectors, positions, work, rows, columns, stride, factor, row_u, row_v, row_w, middle):
    """Do the same for a tile that is partly off the detector: there voxels read the border, which is zero."""
    zero, one, limit = each(np.float32(0)), each(np.float32(1)), each(np.float32(MIN_DEPTH))
    last_x, last_y = each(np.float32(columns - 1)), each(np.float32(rows - 1))
    last_column, last_row = each(np.int32(columns - 2)), each(np.int32(rows - 2))
    for k in range(0, n_vectors * VECTOR_BYTES, VECTOR_BYTES):
        i, j = load_floats(positions + k), load_floats(positions + 4 * TILE_VOXELS + k)
        depth = row_w[0] + i * row_w[1] + j * row_w[2]
        near = zero_unless_above(one / depth, depth, limit)
        x = lesser(greater((row_u[0] + i * row_u[1] + j * row_u[2]) * near + middle[0], zero), last_x)
        y = lesser(greater((row_v[0] + i * row_v[1] + j * row_v[2]) * near + middle[1], zero), last_y)
        column, row = lesser_integers(truncated(x), last_column), lesser_integers(truncated(y), last_row)
        _keep(work + k, row * stride + column, x - as_floats(column), y - as_floats(row), factor * near * near)


@njit(forceinline=True, **OPTIONS)
def _keep(work, offset, fraction_x, fraction_y, weight):
    store(work, offset)
    store(work + 3 * BLOCK_BYTES, fraction_x)
    store(work + 4 * BLOCK_BYTES, fraction_y)
    store(work + 5 * BLOCK_BYTES, weight)


@njit(forceinline=True, **OPTIONS)
def load_pairs(n_vectors, to, base, offsets):
    """Copy the pair of pixels after a base at each of so many vectors of offsets."""
    # LLVM writes the inner loop out; one loop over the block took a tenth longer.
    for vector in range(n_vectors):
        first = vector * VECTOR_BYTES
        for k in range(first, first + VECTOR_BYTES, 4):
            copy_int16_pair(to + k, base, offsets + k)


@njit(forceinline=True, **OPTIONS)
def _interpolate(n_vectors, work, total):
    """Add a block's values, from the pairs of pixels that were loaded, to its sums."""
    for k in range(0, n_vectors * VECTOR_BYTES, VECTOR_BYTES):
        upper, lower = load_integers(work + BLOCK_BYTES + k), load_integers(work + 2 * BLOCK_BYTES + k)
        x, y = load_floats(work + 3 * BLOCK_BYTES + k), load_floats(work + 4 * BLOCK_BYTES + k)
        a, c = first_halves(upper), first_halves(lower)
        above = a + x * (second_halves(upper) - a)
        below = c + x * (second_halves(lower) - c)
        value = load_floats(work + 5 * BLOCK_BYTES + k) * (above + y * (below - above))
        store(total + k, load_floats(total + k) + value)
