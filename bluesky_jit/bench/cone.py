"""Backprojection of the cone beam: training pairs and slices, against torch and RTK, and how exact it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from bluesky_jit.bench.figures import Figure
from bluesky_jit.bench.peers import agreement, rtk_backprojection, torch_grid_sample
from bluesky_jit.bench.setups import BATCH, N_SPLITS, PATCH, Turn
from bluesky_jit.bench.timing import interleaved, median_ms, times_as_fast
from bluesky_jit.tomo.jobs import Jobs, Kernel, ReferenceKernel, Slots

PAIRS_MS = (4.0, 2.0)
"""Floor and goal for a batch on two cores, ..."""
PAIRS_BY_TORCH = (7.0, 12.0)
"""... as a multiple of torch's speed on as many, ..."""
SLICE_BY_TORCH = (8.0, 20.0)
SLICE_BY_RTK = (6.0, 10.0)
"""... and the same for a horizontal slice on one core (issue 3)."""
LARGER_PATCH, PAPER_BATCH_MS = 60, 64.0
"""What the paper's text says of its Fig. 4: a batch of 60-by-60 reconstructions takes 64 ms on its GPU."""
EVERY = 8
"""Points of a slice, each way, of which one is reconstructed exactly."""


def pair_figures(turn: Turn, kernels: dict[str, Kernel], *, rounds: int) -> list[Figure]:
    """Measure a batch of training pairs from a turn, for each kernel and for torch with one thread and two."""
    jobs = turn.jobs(turn.patches(), splits=N_SPLITS)
    contestants: dict[str, Callable[[], object]] = {name: partial(k.run, jobs) for name, k in kernels.items()}
    for threads in (1, 2):
        contestants[f"torch {threads}"] = partial(torch_grid_sample(turn, threads=threads), jobs)
    times = interleaved(contestants, rounds=rounds)
    what = f"{BATCH} pairs {PATCH}×{PATCH}"
    figures = []
    for name in kernels:
        peer = f"torch {threads_of(name)}"
        figures.append(
            Figure(
                name=f"{what}, {name}",
                value=float(np.median(times[name])),
                unit="ms",
                better="lower",
                floor=PAIRS_MS[0] if name == "2 threads" else None,
                goal=PAIRS_MS[1] if name == "2 threads" else None,
                peer=median_ms(times, peer),
                note=f"{speed(jobs, times[name])}; peer: torch grid_sample, {counted(threads_of(name))}",
            )
        )
        figures.append(
            Figure(
                name=f"{what} against torch grid_sample, {name}",
                value=times_as_fast(times, name, peer),
                unit="×",
                better="higher",
                floor=PAIRS_BY_TORCH[0],
                goal=PAIRS_BY_TORCH[1],
                note=f"torch with {counted(threads_of(name))}",
            )
        )
    larger = turn.jobs(turn.patches(min(LARGER_PATCH, turn.points)), splits=N_SPLITS)
    times = interleaved({name: partial(kernel.run, larger) for name, kernel in kernels.items()}, rounds=rounds)
    figures += [
        Figure(
            name=f"{BATCH} pairs {LARGER_PATCH}×{LARGER_PATCH}, {name}",
            value=float(np.median(times[name])),
            unit="ms",
            better="lower",
            note=f"{speed(larger, times[name])}; the paper's text: {PAPER_BATCH_MS:g} ms on its GPU",
        )
        for name in kernels
    ]
    return figures


def slice_figures(turn: Turn, kernels: dict[str, Kernel], *, rounds: int) -> list[Figure]:
    """Measure slices of every orientation from a turn: each kernel, and torch and RTK with one thread."""
    by_torch, by_rtk = torch_grid_sample(turn), rtk_backprojection(turn)
    figures = []
    for orientation, grid in turn.grids.items():
        jobs = turn.jobs((grid,))
        contestants: dict[str, Callable[[], object]] = {name: partial(k.run, jobs) for name, k in kernels.items()}
        contestants["torch grid_sample"] = partial(by_torch, jobs)
        if by_rtk:
            contestants["RTK"] = by_rtk(grid)
        times = interleaved(contestants, rounds=rounds)
        what = f"{orientation} slice {turn.points}²"
        figures += [
            Figure(
                name=f"{what}, {name}",
                value=float(np.median(times[name])),
                unit="ms",
                better="lower",
                peer=median_ms(times, "RTK") if threads_of(name) == 1 else None,
                note=speed(jobs, times[name]) + ("; peer: RTK, 1 thread" if by_rtk and threads_of(name) == 1 else ""),
            )
            for name in kernels
        ]
        marks = {"torch grid_sample": SLICE_BY_TORCH, "RTK": SLICE_BY_RTK}
        for peer in (peer for peer in marks if peer in contestants):
            _, apart = agreement(kernels["1 thread"].run(jobs), np.asarray(contestants[peer]()))
            floor, goal = marks[peer] if orientation == "axial" else (None, None)
            figures.append(
                Figure(
                    name=f"{what} against {peer}, 1 thread",
                    value=times_as_fast(times, "1 thread", peer),
                    unit="×",
                    better="higher",
                    floor=floor,
                    goal=goal,
                    note=f"{np.median(times[peer]):.0f} ms there; images {apart:.0e} rms of the largest apart",
                )
            )
    return figures


def accuracy_figures(turn: Turn, kernels: dict[str, Kernel]) -> list[Figure]:
    """Compare with the exact answer: in double precision, from filtered values that were not rounded to int16."""
    exact = Slots(values=np.pad(turn.filtered, ((0, 0), (1, 1), (1, 1))), scales=np.ones(len(turn.filtered)))
    figures = []
    for orientation, grid in turn.grids.items():
        # Every so many points: the reference is slow. The kernels make the whole slice.
        coarse = grid.coarser(EVERY)
        expected = ReferenceKernel().run(replace(turn.jobs((coarse,)), projections=exact))
        for name, kernel in kernels.items():
            difference = kernel.run(turn.jobs((coarse,))) - expected
            figures.append(
                Figure(
                    name=f"rounding, {orientation} slice, {name}",
                    value=float(np.sqrt(np.mean(difference**2)) / np.abs(expected).max()),
                    unit="of the largest",
                    better="lower",
                    goal=3e-4,
                    note="rms against the reference in double precision",
                )
            )
    return figures


def threads_of(kernel: str) -> int:
    """Return the threads that a peer gets beside a kernel: as many as it has, and one beside a GPU."""
    return 2 if kernel == "2 threads" else 1


def counted(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


def speed(jobs: Jobs, times_ms: np.ndarray) -> str:
    """Say how many updates of a voxel from a projection are made in a second."""
    n_grids, _, nz, ny, nx = jobs.result_shape
    updates = n_grids * nz * ny * nx * len(jobs.slots)
    return f"{updates / np.median(times_ms) / 1e6:.2f}·10⁹ updates/s"
