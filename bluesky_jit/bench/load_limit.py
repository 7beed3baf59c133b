"""How near the CPU kernel is to what a core can load: the same loads in the same order, with nothing else to do.

Each voxel takes two words from each projection, whatever the arithmetic around them. The limit is measured with the
kernel's own loading loops on offsets that were worked out before, for a row of tiles through the middle of a slice. So
that reading these offsets is no burden of its own, neighbouring angles share a tile's, moved to where each angle reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit

from bluesky_jit.bench.figures import Figure
from bluesky_jit.tomo.geometry import ConeGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Jobs, Slots
from bluesky_jit.tomo.kernels.lanes import LANES, OPTIONS, aligned
from bluesky_jit.tomo.kernels.numba import NumbaKernel
from bluesky_jit.tomo.kernels.projective import BLOCK, TILE_ROWS, TILE_VOXELS, load_pairs

CONE = ConeGeometry(n_u=768, n_v=647, pixel_mm=0.2, source_axis_mm=441.4, source_detector_mm=1069)
"""The set-up of the paper's scanner."""
N_ANGLES = 150
POINTS = 1024
"""Points across the slices that are shown in the paper."""
SHARED = 16
"""Neighbouring angles that share a tile's offsets, which then stay in the first-level cache."""
WITHIN = 0.7
"""Part of the field of view that the row of tiles crosses, so that all of it lies on the detector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLimit:
    """Hold 10⁹ voxel-angle updates a second, in one thread: of the loads alone, and of the kernel."""

    orientation: str
    loads_gups: float
    kernel_gups: float


@njit(cache=True, **OPTIONS)
def load_only(values, offsets, moves):
    """Load two rows of a pair for every voxel of every tile from slots 0 to n - 1.

    offsets: int32 (n_tiles, groups, TILE_VOXELS) for groups of SHARED slots; moves: int64 (n_tiles, n), in pixels.
    """
    n_tiles, n = moves.shape
    row_bytes = np.int64(values.strides[1])
    first_slot, slot_bytes = np.int64(values.ctypes.data), np.int64(values.strides[0])
    first_offset, groups = np.int64(offsets.ctypes.data), offsets.shape[1]
    room, work = aligned(2 * BLOCK // LANES)
    for tile in range(n_tiles):
        for p in range(n):
            slot = first_slot + p * slot_bytes + 2 * moves[tile, p]
            for block in range(0, TILE_VOXELS, BLOCK):
                indices = first_offset + 4 * ((tile * groups + p // SHARED) * TILE_VOXELS + block)
                load_pairs(BLOCK // LANES, work, slot, indices)
                load_pairs(BLOCK // LANES, work + 4 * BLOCK, slot + row_bytes, indices)
    return room[0]


def rows_of_tiles() -> dict[str, Grid]:
    """Return a row of tiles through the middle of a slice of each orientation."""
    voxel_mm = 2 * WITHIN * CONE.radius_mm / POINTS
    axes = {
        "horizontal": ((1, 0, 0), (0, 1, 0)),
        "upright": ((1, 0, 0), (0, 0, 1)),
        "oblique": ((1, 0.3, 0.2), (-0.3, 1, 0.6)),
    }
    return {
        name: Grid.centred(
            centre=(0, 0, 5 * voxel_mm), x_axis=x, y_axis=y, voxel_mm=voxel_mm, shape=(1, TILE_ROWS, POINTS)
        )
        for name, (x, y) in axes.items()
    }


def measure(orientation: str, grid: Grid, *, repeats: int = 15) -> LoadLimit:
    """Measure both in turns, so that a busy machine slows both, and take the median of each."""
    rng = np.random.default_rng(0)
    values = np.zeros((N_ANGLES, CONE.n_v + 2, CONE.n_u + 2), dtype=np.int16)
    values[:, 1:-1, 1:-1] = rng.integers(-3000, 3000, (N_ANGLES, CONE.n_v, CONE.n_u))
    matrices = CONE.matrices(2 * np.pi * np.arange(N_ANGLES) / N_ANGLES)
    offsets, moves = shared_offsets(grid, matrices, values.shape[1:])
    jobs = Jobs(
        projections=Slots(values=values, scales=np.ones(N_ANGLES, dtype=np.float32)),
        matrices=matrices,
        slots=np.arange(N_ANGLES),
        scales=np.full(N_ANGLES, 1e-3),
        splits=np.zeros(N_ANGLES, dtype=np.int64),
        n_splits=1,
        grids=(grid,),
    )
    kernel = NumbaKernel()
    both = (lambda: load_only(values, offsets, moves), lambda: kernel.run(jobs))
    times = np.array([[_seconds(function) for function in both] for _ in range(repeats + 1)])
    updates = int(np.prod(grid.shape)) * N_ANGLES
    loads_s, kernel_s = np.median(times[1:], axis=0)
    return LoadLimit(orientation=orientation, loads_gups=updates / loads_s / 1e9, kernel_gups=updates / kernel_s / 1e9)


def shared_offsets(grid: Grid, matrices: np.ndarray, slot_shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return what `load_only` takes: where the voxels of each tile read, and how far each angle's pixels are moved."""
    rows, columns = slot_shape
    exact = _offsets(grid, matrices, columns)
    offsets = np.ascontiguousarray(exact[:, ::SHARED])
    group = np.arange(len(matrices)) // SHARED
    moves = exact.min(axis=2) - offsets.min(axis=2)[:, group]
    most = rows * columns - columns - 2 - offsets.max(axis=2)[:, group]
    return offsets, np.clip(moves, -offsets.min(axis=2)[:, group], most).astype(np.int64)


def _offsets(grid: Grid, matrices: np.ndarray, columns: int) -> np.ndarray:
    """Return int32 (n_tiles, n, TILE_VOXELS): the pixel of its slot that each voxel of each tile begins to read at."""
    _, ny, nx = grid.shape
    points = np.concatenate([grid.points()[0].reshape(-1, 3), np.ones((ny * nx, 1))], axis=1)
    width = TILE_VOXELS // ny
    offsets = np.empty((nx // width, len(matrices), TILE_VOXELS), dtype=np.int32)
    for p, matrix in enumerate(matrices):
        uw, vw, w = matrix @ points.T
        pixels = np.floor(vw / w + 1) * columns + np.floor(uw / w + 1)
        offsets[:, p] = pixels.reshape(ny, -1, width).swapaxes(0, 1).reshape(-1, TILE_VOXELS)
    return offsets


def _seconds(function: Callable[[], object]) -> float:
    began = time.thread_time()
    function()
    return time.thread_time() - began


def figures(*, repeats: int = 15) -> list[Figure]:
    """Return, for each orientation, the kernel's speed with the loads alone as its peer."""
    made = []
    for orientation, grid in rows_of_tiles().items():
        limit = measure(orientation, grid, repeats=repeats)
        made.append(
            Figure(
                name=f"updates of one core, {orientation} slice",
                value=limit.kernel_gups,
                unit="10⁹/s",
                better="higher",
                peer=limit.loads_gups,
                note=f"{limit.kernel_gups / limit.loads_gups:.0%} of what the core loads with nothing else to do",
            )
        )
    return made
