"""Other people's reconstructions of a cone beam, asked the same job table as our kernels and answering in one thread.

Whichever is not installed is left out, with one line that says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from rich.console import Console

from bluesky_jit.bench.setups import Turn
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Jobs

CHUNK = 2**16
"""Points that torch's grid_sample takes at once: of 2¹⁴ to 2²⁰ the fastest for pairs, and as fast for slices."""
TO_RTK = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""RTK turns about y, with z towards the source: what its x, y and z are in our frame."""

Run = Callable[[], np.ndarray]


def installed(package: str) -> bool:
    """Say whether a peer's package is installed, and on the console what is left out when it is not."""
    try:
        version(package)
    except PackageNotFoundError:
        Console(soft_wrap=True).print(
            f"{package} is not installed, so nothing is compared with it: pip install 'bluesky-jit\\[bench]'"
        )
        return False
    return True


def torch_grid_sample(turn: Turn, *, threads: int = 1) -> Callable[[Jobs], np.ndarray]:
    """Return a kernel that backprojects as one would in torch: its grid_sample, angles in chunks that fit a cache.

    It takes what `Turn.jobs` asks for.
    """
    projections = torch.from_numpy(turn.filtered)[:, None]
    n_v, n_u = turn.filtered.shape[1:]
    # From pixels to grid_sample's −1 … 1 between the centres of the first and the last.
    to_unit = torch.tensor([2 / (n_u - 1), 2 / (n_v - 1)])[None, :, None]

    def run(jobs: Jobs) -> np.ndarray:
        torch.set_num_threads(threads)
        points = np.concatenate([grid.points().reshape(-1, 3) for grid in jobs.grids])
        homogeneous = torch.from_numpy(np.append(points, np.ones((len(points), 1)), axis=1).T.astype(np.float32))
        matrices = torch.from_numpy(jobs.matrices.astype(np.float32))
        scales = torch.from_numpy(jobs.scales.astype(np.float32))
        sums = torch.zeros(jobs.n_splits, len(points))
        step = max(1, CHUNK // len(points))
        for split in range(jobs.n_splits):
            # A slice and no list of numbers: torch reads projections where they lie.
            for first in range(split, len(jobs.slots), step * jobs.n_splits):
                chunk = slice(first, first + step * jobs.n_splits, jobs.n_splits)
                camera = matrices[chunk] @ homogeneous
                inverse = 1 / camera[:, 2:]
                places = (camera[:, :2] * inverse * to_unit - 1).permute(0, 2, 1)[:, None]
                read = torch.nn.functional.grid_sample(projections[chunk], places, align_corners=True)
                sums[split] += (read[:, 0, 0] * inverse[:, 0] ** 2 * scales[chunk][:, None]).sum(0)
        n_grids, _, nz, ny, nx = jobs.result_shape
        return np.moveaxis(sums.numpy().reshape(jobs.n_splits, n_grids, nz, ny, nx), 0, 1)

    return run


def rtk_backprojection(turn: Turn) -> Callable[[Grid], Run] | None:
    """Return what makes a run of RTK's Feldkamp backprojection for a slice, (1, ny, nx); None without RTK.

    One thread: with more, each of RTK's work units copies every projection.
    """
    if not installed("itk-rtk"):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # SWIG's types name no module
        itk: Any = import_module("itk")
        rtk = itk.RTK
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)
    geometry = turn.geometry
    image_type = itk.Image[itk.F, 3]
    circle = rtk.ThreeDCircularProjectionGeometry.New()
    for angle in turn.angles_rad:
        circle.AddProjection(geometry.source_axis_mm, geometry.source_detector_mm, -np.degrees(angle))
    stack = itk.image_from_array(turn.filtered)
    stack.SetOrigin([-geometry.u_centre * geometry.pixel_mm, -geometry.v_centre * geometry.pixel_mm, 0])
    stack.SetSpacing([geometry.pixel_mm, geometry.pixel_mm, 1])

    def prepare(grid: Grid) -> Run:
        # RTK is quickest with a turn's plane across its y, so a horizontal slice has our y along its z.
        steps = np.array([grid.x_step, grid.z_step, -np.asarray(grid.y_step)])
        corner = grid.points_of(np.array([[0, grid.shape[1] - 1, 0]]))[0]
        spacing = np.linalg.norm(steps, axis=1)
        empty = itk.image_from_array(np.zeros((grid.shape[1], 1, grid.shape[2]), dtype=np.float32))
        empty.SetSpacing(list(spacing))
        empty.SetOrigin(list(TO_RTK @ corner))
        empty.SetDirection(itk.matrix_from_array(np.ascontiguousarray(TO_RTK @ (steps / spacing[:, None]).T)))
        backprojection = rtk.FDKBackProjectionImageFilter[image_type, image_type].New()
        backprojection.SetInput(0, empty)
        backprojection.SetInput(1, stack)
        backprojection.SetGeometry(circle)
        backprojection.InPlaceOff()  # it is run again and again, each time from nothing

        def run() -> np.ndarray:
            backprojection.Modified()
            backprojection.Update()
            return itk.array_from_image(backprojection.GetOutput()).transpose(1, 0, 2)[:, ::-1]

        return run

    return prepare


def agreement(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Return their scale in ours, and the rms difference at equal scale as part of our largest value."""
    ours, theirs = ours.astype(np.float64).ravel(), theirs.astype(np.float64).ravel()
    scale = float(ours @ theirs / (theirs @ theirs))
    return scale, float(np.sqrt(np.mean((ours - scale * theirs) ** 2)) / np.abs(ours).max())
