"""Poses of patches: where they lie, how they are turned, and which of many are taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bluesky_jit.learn.guard import Guard
from bluesky_jit.learn.region import Region, corners_of
from bluesky_jit.tomo.grid import Grid

ROUNDS = 8
"""Times that poses are proposed, at least eight for each patch still missing, before patches are placed elsewhere."""

Poses = tuple[np.ndarray, np.ndarray]
"""Centres (m, 3) and the z, y and x steps (m, 3, 3) of patches, in mm."""


def collect(
    wanted: int,
    shape: tuple[int, int, int],
    proposals: Sequence[Callable[[int], Poses]],
    allowed: Callable[[np.ndarray], np.ndarray],
) -> tuple[Grid, ...]:
    """Return grids at the first poses that are allowed; a proposal that falls short gives way to the next."""
    half = (np.array(shape) - 1) / 2
    signs = np.stack(np.meshgrid(*[(-1, 1)] * 3, indexing="ij"), axis=-1).reshape(8, 3)
    grids: list[Grid] = []
    for propose in proposals:
        for _ in range(ROUNDS):
            missing = wanted - len(grids)
            if missing == 0:
                return tuple(grids)
            centres, steps = propose(max(8 * missing, 128))
            corners = centres[:, None] + (signs * half) @ steps
            for chosen in np.flatnonzero(allowed(corners))[:missing]:
                z, y, x = steps[chosen]
                grids.append(Grid(origin=corners[chosen, 0], z_step=z, y_step=y, x_step=x, shape=shape))
    if len(grids) < wanted:
        raise ValueError(
            f"patches of {shape} points find no room beside the guard region: give a smaller learn.patch or voxel, "
            "or a larger region (learn.region_mm)"
        )
    return tuple(grids)


def near_slices(
    rng: np.random.Generator, shown: tuple[Grid, ...], region: Region, count: int, near_mm: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return centres, steps and the slices' numbers: uniform over a slice's face, and at most near_mm out of it.

    Of a face that is larger than the region, only the rectangle around the region is used.
    """
    slices = rng.integers(len(shown), size=count)
    steps = np.stack([grid.steps for grid in shown])[slices]
    origins = np.array([grid.origin for grid in shown])[slices]
    low, high = (ends[slices] for ends in _faces(shown, region))
    places = low + rng.random((count, 3)) * (high - low)
    normals = steps[:, 0] / np.linalg.norm(steps[:, 0], axis=1, keepdims=True)
    out = rng.uniform(-near_mm, near_mm, size=(count, 1))
    return origins + np.einsum("mk,mkc->mc", places, steps) + out * normals, steps, slices


def _faces(shown: tuple[Grid, ...], region: Region) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and last index, float64 (n, 3) in (k, j, i) order, of the part of each slice over the region."""
    corners = corners_of(region)
    low, high = np.zeros((len(shown), 3)), np.array([grid.shape for grid in shown]) - 1.0
    for number, grid in enumerate(shown):
        places = (corners - grid.origin) @ np.linalg.inv(grid.steps)
        first = np.maximum(low[number, 1:], places[:, 1:].min(axis=0))
        last = np.minimum(high[number, 1:], places[:, 1:].max(axis=0))
        # A slice that lies beside the region has no such part; its patches will not be allowed.
        if np.all(first <= last):
            low[number, 1:], high[number, 1:] = first, last
    return low, high


def inside(shown: tuple[Grid, ...], slices: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return which centres lie over the face of their slice."""
    result = np.zeros(len(centres), dtype=bool)
    for number, grid in enumerate(shown):
        mine = slices == number
        places = (centres[mine] - grid.origin) @ np.linalg.inv(grid.steps)
        result[mine] = np.all((places[:, 1:] >= 0) & (places[:, 1:] <= np.array(grid.shape[1:]) - 1), axis=1)
    return result


def along(guard: Guard, steps: np.ndarray) -> np.ndarray:
    """Turn patches (m, 3, 3) within their planes until their rows (x steps) run along the guard."""
    sizes = np.linalg.norm(steps, axis=2, keepdims=True)
    z = steps[:, 0] / sizes[:, 0]
    x = np.cross(guard.normal, z)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    # A plane along the guard has no such direction; there any will do.
    x = np.where(length > 1e-6, x / np.where(length > 0, length, 1.0), steps[:, 2] / sizes[:, 2])
    return np.stack([z, np.cross(z, x), x], axis=1) * sizes


def moved_into(
    guard: Guard,
    rng: np.random.Generator,
    centres: np.ndarray,
    steps: np.ndarray,
    directions: np.ndarray,
    shape: tuple[int, int, int],
) -> np.ndarray:
    """Move patches along unit directions (m, 3) into the guard, anywhere that they fit across it."""
    normal = np.asarray(guard.normal)
    half_extent = abs(steps @ normal) @ ((np.array(shape) - 1) / 2)
    slack = np.maximum(guard.thickness_mm / 2 - half_extent, 0.0)
    wanted = rng.uniform(-1, 1, len(centres)) * slack
    slope = directions @ normal
    # A slice along the guard never meets it by moving within itself; such a patch stays where it is.
    distance = np.where(abs(slope) > 1e-6, (wanted - guard.distances(centres)) / np.where(slope, slope, 1.0), 0.0)
    return centres + distance[:, None] * directions


def voxels_mm(rng: np.random.Generator, shown: tuple[Grid, ...], voxel_mm: float, count: int) -> np.ndarray:
    """Return voxel sizes (count,): of slices on show, drawn at random, or else the usual one."""
    sizes = np.array([np.linalg.norm(grid.steps[2]) for grid in shown] or [voxel_mm])
    return sizes[rng.integers(len(sizes), size=count)]


def rotations(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return rotation matrices (count, 3, 3), uniform: from unit quaternions, which are uniform on their sphere."""
    q = rng.normal(size=(count, 4))
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def about_z(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return z, y and x directions (count, 3, 3) of level planes, turned about z at random."""
    angle = rng.uniform(0, 2 * np.pi, count)
    cos, sin, zero, one = np.cos(angle), np.sin(angle), np.zeros(count), np.ones(count)
    return np.moveaxis(np.array([[zero, zero, one], [-sin, cos, zero], [cos, sin, zero]]), 2, 0)
