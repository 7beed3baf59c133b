"""Filtered backprojection of a horizontal slice of a parallel beam, from line integrals, against other people's."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numba
import numpy as np

from bluesky_jit.bench.cone import counted
from bluesky_jit.bench.figures import Figure
from bluesky_jit.bench.peers import Run, agreement, installed
from bluesky_jit.bench.timing import interleaved, times_as_fast
from bluesky_jit.session.workers import Workers
from bluesky_jit.tomo.geometry import ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Jobs, Pool, Slots
from bluesky_jit.tomo.kernels.numba import NumbaKernel
from bluesky_jit.tomo.ramp import filtered, make_filter
from bluesky_jit.tomo.window import quantise
from sim_devices.phantom import experiment

BY_ALGOTOM = (3.0, 5.0)
"""Floor and goal: how many times as fast as algotom (issue 3)."""
SMALLER = 4
"""Part of the columns, and of the angles, at which peers that take minutes are compared."""
INSIDE = 0.9
"""Part of the radius in which images are compared: peers differ in what they make of the rim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sinogram:
    """Hold line integrals of one detector row, float32 (n, n_u), over half a turn; pixels are of 1 mm."""

    values: np.ndarray
    angles_rad: np.ndarray

    @property
    def columns(self) -> int:
        return self.values.shape[1]

    @property
    def what(self) -> str:
        return f"parallel slice {self.columns}² from {len(self.values)} angles"


def make_sinogram(n_u: int, n_angles: int) -> Sinogram:
    """Project the simulated jar."""
    geometry = ParallelGeometry(n_u=n_u, n_v=1, pixel_mm=1.0)
    phantom = experiment("A", seed=0, radius_mm=geometry.radius_mm, half_height_mm=geometry.radius_mm)
    angles = np.pi * np.arange(n_angles) / n_angles
    rows = [phantom.line_integrals(geometry, float(angle), 10.0)[0] for angle in angles]
    return Sinogram(values=np.stack(rows), angles_rad=angles)


def ours(sinogram: Sinogram, pool: Pool | None = None) -> Run:
    """Return our way: filter rows, store them as int16, backproject; all of it from the sinogram on."""
    n, n_u = sinogram.values.shape
    kernel = NumbaKernel(pool)
    # The filter treats rows alike, whichever angle they are of.
    row_filter = make_filter(ParallelGeometry(n_u=n_u, n_v=n, pixel_mm=1.0))
    geometry = ParallelGeometry(n_u=n_u, n_v=1, pixel_mm=1.0)
    grid = Grid.slice_xy(voxel_mm=1.0, shape=(n_u, n_u))

    def run() -> np.ndarray:
        rows = filtered(sinogram.values, row_filter)
        slots = Slots(values=np.zeros((n, 3, n_u + 2), dtype=np.int16), scales=np.ones(n, dtype=np.float32))
        for k in range(n):
            slots.scales[k] = quantise(rows[k : k + 1], slots.values[k])
        jobs = Jobs(
            projections=slots,
            matrices=geometry.matrices(sinogram.angles_rad),
            slots=np.arange(n),
            scales=np.full(n, np.pi / n),
            splits=np.zeros(n, dtype=np.int64),
            n_splits=1,
            grids=(grid,),
        )
        return kernel.run(jobs)[0, 0, 0]

    return run


def by_algotom(sinogram: Sinogram, *, threads: int) -> Run:
    """Return algotom's filtered backprojection on the CPU, with its filter but without a window or a mask."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reconstruction: Any = import_module("algotom.rec.reconstruction")

    def run() -> np.ndarray:
        before = numba.get_num_threads()
        numba.set_num_threads(min(threads, before))
        try:
            return reconstruction.fbp_reconstruction(
                sinogram.values,
                (sinogram.columns - 1) / 2,
                angles=sinogram.angles_rad,
                ratio=None,
                filter_name=None,
                apply_log=False,
                gpu=False,
            )
        finally:
            numba.set_num_threads(before)

    return run


def by_astra(sinogram: Sinogram) -> Run:
    """Return ASTRA's filtered backprojection on the CPU, which has one thread."""
    toolbox: Any = import_module("astra")
    n_u = sinogram.columns
    volume = toolbox.create_vol_geom(n_u, n_u)
    views = toolbox.create_proj_geom("parallel", 1.0, n_u, sinogram.angles_rad)
    projector = toolbox.create_projector("linear", views, volume)
    data = toolbox.data2d.create("-sino", views, sinogram.values)
    image = toolbox.data2d.create("-vol", volume)
    algorithm = toolbox.algorithm.create(
        {
            **toolbox.astra_dict("FBP"),
            "ProjectorId": projector,
            "ProjectionDataId": data,
            "ReconstructionDataId": image,
            "option": {"FilterType": "ram-lak"},
        }
    )

    def run() -> np.ndarray:
        toolbox.algorithm.run(algorithm)
        return toolbox.data2d.get(image)

    return run


def by_skimage(sinogram: Sinogram) -> Run:
    """Return scikit-image's iradon, which has one thread."""
    from skimage.transform import iradon

    return partial(iradon, sinogram.values.T, theta=np.rad2deg(sinogram.angles_rad), filter_name="ramp", circle=True)


def parallel_figures(*, n_u: int, n_angles: int, rounds: int) -> list[Figure]:
    """Measure a slice against algotom, with one thread and two, and a smaller one against ASTRA and scikit-image."""
    sinogram = make_sinogram(n_u, n_angles)
    with_algotom = installed("algotom")
    figures: list[Figure] = []
    with Workers(2) as workers:
        contestants: dict[str, Callable[[], object]] = {}
        for threads, pool in ((1, None), (2, workers)):
            contestants[counted(threads)] = ours(sinogram, pool)
            if with_algotom:
                contestants[f"algotom, {counted(threads)}"] = by_algotom(sinogram, threads=threads)
        times = interleaved(contestants, rounds=rounds)
        for threads in (counted(1), counted(2)):
            peer = f"algotom, {threads}" if with_algotom else None
            figures.append(_time(sinogram, times, threads, peer))
            if peer:
                figures.append(_ratio(sinogram, contestants, times, threads, peer, BY_ALGOTOM))
    # An odd number of columns: in an even one scikit-image's centre lies half a pixel beside the others'.
    smaller = make_sinogram(n_u // SMALLER + 1, n_angles // SMALLER)
    contestants = {counted(1): ours(smaller)}
    if installed("astra-toolbox"):
        contestants["ASTRA on the CPU, 1 thread"] = by_astra(smaller)
    contestants["scikit-image, 1 thread"] = by_skimage(smaller)
    times = interleaved(contestants, rounds=rounds)
    figures.append(_time(smaller, times, counted(1), None))
    figures += [_ratio(smaller, contestants, times, counted(1), peer) for peer in list(contestants)[1:]]
    return figures


def _time(sinogram: Sinogram, times: dict[str, np.ndarray], threads: str, peer: str | None) -> Figure:
    updates = sinogram.columns**2 * len(sinogram.values)
    ms = float(np.median(times[threads]))
    return Figure(
        name=f"{sinogram.what}, {threads}",
        value=ms,
        unit="ms",
        better="lower",
        peer=float(np.median(times[peer])) if peer else None,
        note=f"filter included; {updates / ms / 1e6:.2f}·10⁹ updates/s" + (f"; peer: {peer}" if peer else ""),
    )


def _ratio(
    sinogram: Sinogram,
    contestants: dict[str, Callable[[], object]],
    times: dict[str, np.ndarray],
    threads: str,
    peer: str,
    marks: tuple[float, float] | tuple[None, None] = (None, None),
) -> Figure:
    centre = (sinogram.columns - 1) / 2
    inside = np.hypot(*(np.indices((sinogram.columns,) * 2) - centre)) < INSIDE * centre
    images = (np.asarray(contestants[name]())[inside] for name in (threads, peer))
    _, apart = agreement(*images)
    return Figure(
        name=f"{sinogram.what} against {peer}",
        value=times_as_fast(times, threads, peer),
        unit="×",
        better="higher",
        floor=marks[0],
        goal=marks[1],
        note=f"{np.median(times[peer]):.0f} ms there; images {apart:.0e} rms of the largest apart",
    )
