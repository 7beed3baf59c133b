"""The loops of the CPU kernel where a whole plane reads one line of each slot: horizontal slices of a parallel beam.

There the detector row is interpolated once an angle, and each voxel takes two numbers instead of four.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from bluesky_jit.tomo.kernels.lanes import (
    LANES,
    OPTIONS,
    VECTOR_BYTES,
    aligned,
    as_floats,
    copy_float_pair,
    each,
    greater,
    lesser,
    lesser_integers,
    load_first_of_pairs,
    load_floats,
    load_second_of_pairs,
    store,
    truncated,
)
from bluesky_jit.tomo.kernels.projective import (
    BLOCK,
    BLOCK_BYTES,
    MARGIN,
    TILE_VOXELS,
    add_tile,
    number_voxels,
    place,
    tile_shape,
)


@njit(cache=True, **OPTIONS)
def read_lines(values, slots, scales, rows, lines):
    """Interpolate each slot at a row, counted with the border, into lines float32 (n, n_u + 2), times its scale."""
    n_rows, n_columns = values.shape[1], values.shape[2]
    for p in range(len(slots)):
        row = min(max(rows[p], 0.0), n_rows - 1.0)
        first = min(int(row), n_rows - 2)
        lower = np.float32(scales[p] * (row - first))
        upper = np.float32(scales[p] * (first + 1 - row))
        above, below, line = values[slots[p], first], values[slots[p], first + 1], lines[p]
        for c in range(n_columns):
            line[c] = upper * above[c] + lower * below[c]


@njit(cache=True, **OPTIONS)
def backproject_lines(lines, columns_at, splits, plane, first_tile, last_tile):
    """Add lines to some tiles of a plane (n_splits, ny, nx).

    columns_at: float64 (n, 3), where the plane's first voxel reads its line, the border counted, and how much further a
    column and a row on.
    """
    n_splits, ny, nx = plane.shape
    n_columns = lines.shape[1]
    address, line_bytes = np.int64(lines.ctypes.data), np.int64(lines.strides[0])
    tile_rows, tile_columns = tile_shape(ny, nx)
    n_down, n_across = -(-ny // tile_rows), -(-nx // tile_columns)
    room, positions = aligned(2 * TILE_VOXELS // LANES)
    position_values = room[(positions - np.int64(room.ctypes.data)) // 4 :]
    sums_room, sums = aligned(n_splits * TILE_VOXELS // LANES)
    sum_values = sums_room[(sums - np.int64(sums_room.ctypes.data)) // 4 :]
    work_room, work = aligned(4 * BLOCK // LANES)
    numbered = 0
    for tile in range(first_tile, last_tile):
        _, first_row, first_column, own_rows, own_columns = place(
            tile, n_down, n_across, tile_rows, tile_columns, ny, nx
        )
        if own_columns != numbered:
            number_voxels(position_values, own_columns)
            numbered = own_columns
        sum_values[: n_splits * TILE_VOXELS] = 0
        for p in range(len(lines)):
            start, along, across = columns_at[p]
            start += first_column * along + first_row * across
            _add_line(
                address + line_bytes * p, n_columns, start, along, across, own_rows, own_columns, positions, work,
                sums + 4 * TILE_VOXELS * splits[p],
            )  # fmt: skip
        for s in range(n_splits):
            add_tile(
                sum_values[s * TILE_VOXELS : (s + 1) * TILE_VOXELS],
                first_row, first_column, own_rows, own_columns, plane[s],
            )  # fmt: skip
    # What the addresses point into lives until here.
    return room[0] + sums_room[0] + work_room[0]


@njit(forceinline=True, **OPTIONS)
def _add_line(line, n_columns, start, along, across, tile_rows, tile_columns, positions, work, total):
    """Add one line to the sums of one tile; all three are addresses."""
    n_blocks = -(-tile_rows * tile_columns // BLOCK)
    # The last block is full: it goes on into rows below the tile, whose sums nobody reads.
    last_row = -(-n_blocks * BLOCK // tile_columns) - 1
    width, height = (tile_columns - 1) * along, last_row * across
    left = start + min(width, 0.0) + min(height, 0.0)
    right = start + max(width, 0.0) + max(height, 0.0)
    if right < 0 or left > n_columns - 1:
        return
    inside = left > MARGIN and right < n_columns - 1 - MARGIN
    first, column_step, row_step = each(np.float32(start)), each(np.float32(along)), each(np.float32(across))
    zero, last, last_pair = each(np.float32(0)), each(np.float32(n_columns - 1)), each(np.int32(n_columns - 2))
    for block in range(n_blocks):
        done = block * BLOCK_BYTES
        for k in range(0, BLOCK_BYTES, VECTOR_BYTES):
            i, j = load_floats(positions + done + k), load_floats(positions + 4 * TILE_VOXELS + done + k)
            x = first + i * column_step + j * row_step
            if inside:
                column = truncated(x)
            else:
                x = lesser(greater(x, zero), last)
                column = lesser_integers(truncated(x), last_pair)
            store(work + k, column)
            store(work + BLOCK_BYTES + k, x - as_floats(column))
        # LLVM writes the inner loop out; one loop over the block took a third longer.
        for begin in range(0, BLOCK, LANES):
            for k in range(begin, begin + LANES):
                copy_float_pair(work + 2 * BLOCK_BYTES + 8 * k, line, work + 4 * k)
        for k in range(0, BLOCK_BYTES, VECTOR_BYTES):
            pairs = work + 2 * BLOCK_BYTES + 2 * k
            a = load_first_of_pairs(pairs)
            value = a + load_floats(work + BLOCK_BYTES + k) * (load_second_of_pairs(pairs) - a)
            store(total + done + k, load_floats(total + done + k) + value)
