"""The ASTRA toolbox as a second opinion: somebody else's code, asked in its own words.

On a GPU it takes any job through its 3-D backprojection. On the CPU it has none; horizontal slices of a parallel beam
go through its 2-D strip model there, which averages over a pixel's area, so pixels are made small. Slow, and exact only
as far as that: for checks, not for live use.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np

from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import MIN_DEPTH, Jobs, result_for
from bluesky_jit.tomo.kernels.cuda_launch import pieces

VOXELS_PER_PIXEL = 9
"""Points that the CPU makes along each pixel's width; with these and ..."""
BINS_PER_PIXEL = 16
"""... these values, white noise of one pixel comes out within 2 % of its maximum, and a smoother image nearer."""
MOST_VALUES = 2**24
"""Points made at a time, 64 MB of them."""
LEVEL = 1e-6
"""Change of the detector row over a slice, in pixels, below which the slice is horizontal."""


class AstraKernel:
    """Backproject with the ASTRA toolbox; `on_gpu` says where."""

    def __init__(self) -> None:
        # By name: it is an extra.
        self._astra: Any = import_module("astra")
        # Without a GPU its 3-D functions end the process.
        self.on_gpu = bool(self._astra.use_cuda())

    def run(self, jobs: Jobs, *, out: np.ndarray | None = None) -> np.ndarray:
        """Backproject; raise NotImplementedError for what ASTRA cannot do on this machine."""
        result = result_for(jobs, out)
        for g, grid in enumerate(jobs.grids):
            rays = rays_in(grid, jobs.matrices)
            for split in range(jobs.n_splits):
                members = np.asarray(jobs.splits) == split
                if not members.any():
                    continue
                if self.on_gpu:
                    result[g, split] += self._volume(jobs, grid, rays[members], members)
                else:
                    self._add_planes(jobs, grid, rays[members], members, result[g, split])
        return result

    def _volume(self, jobs: Jobs, grid: Grid, rays: np.ndarray, members: np.ndarray) -> np.ndarray:
        """Backproject these projections in 3-D: float32 (nz, ny, nx)."""
        _, rows, columns = jobs.projections.values.shape
        kind, vectors = vectors_3d(rays, rows, columns)
        require_in_front(rays, grid)
        u, v = vectors[:, 6:9], vectors[:, 9:12]
        # ASTRA weights a voxel by the rays that meet it, one for each |u × v| / w² of area.
        areas = np.linalg.norm(np.cross(u, v), axis=1)
        slots = np.asarray(jobs.slots)[members]
        scales = jobs.scales[members] * jobs.projections.scales[slots] * areas
        images = (jobs.projections.values[slots] * scales[:, None, None]).astype(np.float32)
        nz, ny, nx = grid.shape
        identity, volume = self._astra.create_backprojection3d_gpu(
            np.ascontiguousarray(images.transpose(1, 0, 2)),
            self._astra.create_proj_geom(kind, rows, columns, vectors),
            self._astra.create_vol_geom(ny, nx, nz),
        )
        self._astra.data3d.delete(identity)
        return volume

    def _add_planes(self, jobs: Jobs, grid: Grid, rays: np.ndarray, members: np.ndarray, total: np.ndarray) -> None:
        """Add these projections to the planes of one grid, (nz, ny, nx), by the 2-D model."""
        _require_horizontal(rays, grid)
        # How wide a voxel is in pixels: its longest step over the detector.
        width = max(np.abs(rays[:, 0, :2]).max(), 1 / VOXELS_PER_PIXEL)
        fine = int(np.ceil(width * VOXELS_PER_PIXEL)) // 2 * 2 + 1
        alone = replace(
            jobs,
            matrices=jobs.matrices[members],
            slots=np.asarray(jobs.slots)[members],
            scales=jobs.scales[members],
            splits=np.zeros(np.count_nonzero(members), dtype=np.int64),
            n_splits=1,
            grids=(grid,),
        )
        for piece, where in pieces(alone, MOST_VALUES * np.dtype(np.float32).itemsize // fine**2):
            part = total[where[2:]] if len(where) > 1 else total
            for k in range(piece.grids[0].shape[0]):
                part[k] += self._plane(piece, k, fine)

    def _plane(self, jobs: Jobs, k: int, fine: int) -> np.ndarray:
        """Backproject one horizontal plane of a grid in 2-D: float32 (ny, nx), the middles of fine × fine points."""
        astra, (nz, ny, nx) = self._astra, jobs.grids[0].shape
        columns = jobs.projections.values.shape[2]
        rays = rays_in(jobs.grids[0], jobs.matrices)
        lines = _lines(jobs, rays[:, 1, 3] + (k - (nz - 1) / 2) * rays[:, 1, 2])
        bins = np.arange((columns - 1) * BINS_PER_PIXEL + 1) / BINS_PER_PIXEL
        lines = np.stack([np.interp(bins, np.arange(columns), line) for line in lines])
        # In bins and fine points; ASTRA's rows go downwards.
        along = np.stack([rays[:, 0, 0], -rays[:, 0, 1]], axis=1) * (BINS_PER_PIXEL / fine)
        middle = (rays[:, 0, 3] + (k - (nz - 1) / 2) * rays[:, 0, 2]) * BINS_PER_PIXEL
        length = np.linalg.norm(along, axis=1, keepdims=True)
        bin_step = along / length**2
        centre = ((len(bins) - 1) / 2 - middle)[:, None] * bin_step
        direction = np.stack([-along[:, 1], along[:, 0]], axis=1) / length
        projector = astra.create_projector(
            "strip",
            astra.create_proj_geom("parallel_vec", len(bins), np.concatenate([direction, centre, bin_step], axis=1)),
            astra.create_vol_geom(ny * fine, nx * fine),
        )
        # The strip model sums areas, one for each bin's width.
        identity, plane = astra.create_backprojection((lines / length).astype(np.float32), projector)
        astra.data2d.delete(identity)
        astra.projector.delete(projector)
        return plane[fine // 2 :: fine, fine // 2 :: fine]


def rays_in(grid: Grid, matrices: np.ndarray) -> np.ndarray:
    """Return float64 (n, 3, 4): voxel steps (x, y, z) from a grid's middle -> (u·w, v·w, w), the border counted."""
    frame = np.zeros((4, 4))
    frame[:3, :3] = grid.steps[::-1].T
    frame[:3, 3] = grid.centre
    frame[3, 3] = 1
    rays = matrices @ frame
    rays[:, :2] += rays[:, 2:]
    return rays


def vectors_3d(rays: np.ndarray, rows: int, columns: int) -> tuple[str, np.ndarray]:
    """Return the name of ASTRA's geometry and its vectors (n, 12) for projections in voxel steps (n, 3, 4).

    The detector may lie anywhere along the rays: here where w = 1 in the cone, and through the middle in a parallel
    beam.
    """
    middle = np.array([(columns - 1) / 2, (rows - 1) / 2])
    if np.any(rays[:, 2, :3]):
        inverse = np.linalg.inv(rays[:, :, :3])
        source = -np.einsum("nij,nj->ni", inverse, rays[:, :, 3])
        centre = source + np.einsum("nij,j->ni", inverse, np.append(middle, 1.0))
        return "cone_vec", np.concatenate([source, centre, inverse[:, :, 0], inverse[:, :, 1]], axis=1)
    plane = rays[:, :2] / rays[:, 2:, 3:]
    direction = np.cross(plane[:, 0, :3], plane[:, 1, :3])
    inverse = np.linalg.pinv(plane[:, :, :3])
    centre = np.einsum("nij,nj->ni", inverse, middle - plane[:, :, 3])
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return "parallel3d_vec", np.concatenate([direction, centre, inverse[:, :, 0], inverse[:, :, 1]], axis=1)


def _lines(jobs: Jobs, rows: np.ndarray) -> np.ndarray:
    """Return float64 (n, columns): each projection's scaled values at one row, between two of its own."""
    n_rows = jobs.projections.values.shape[1]
    rows = np.clip(rows, 0, n_rows - 1)
    first = np.minimum(rows.astype(np.int64), n_rows - 2)
    part = (rows - first)[:, None]
    values = jobs.projections.values
    lines = values[jobs.slots, first] * (1 - part) + values[jobs.slots, first + 1] * part
    return lines * (jobs.scales * jobs.projections.scales[jobs.slots])[:, None]


def require_in_front(rays: np.ndarray, grid: Grid) -> None:
    """Raise NotImplementedError when a voxel is behind the source: ASTRA would project it through the source."""
    half = (np.array(grid.shape[::-1]) - 1) / 2
    nearest = (rays[:, 2, 3] - np.abs(rays[:, 2, :3]) @ half).min()
    if nearest <= MIN_DEPTH:
        raise NotImplementedError(
            f"a grid reaches {nearest:.3g} of the way from the source to the axis, and ASTRA has no limit there: keep "
            f"grids beyond {MIN_DEPTH}, or use another kernel"
        )


def _require_horizontal(rays: np.ndarray, grid: Grid) -> None:
    """Raise NotImplementedError unless this is a horizontal slice in a parallel beam."""
    change = np.abs(rays[:, 1, :2]) @ np.array(grid.shape[:0:-1])
    if np.any(rays[:, 2, :3]) or np.any(change > LEVEL):
        raise NotImplementedError(
            "without a GPU, ASTRA backprojects horizontal slices of a parallel beam only: use the numba or the "
            "reference kernel for cones and other grids"
        )
