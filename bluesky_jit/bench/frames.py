"""What a frame costs: from raw counts to the window's slot, and from there into a slice that is kept up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import scipy.fft
import torch

from bluesky_jit.bench.cone import counted
from bluesky_jit.bench.figures import Figure
from bluesky_jit.bench.peers import installed
from bluesky_jit.bench.setups import FRAME_S, Turn
from bluesky_jit.bench.timing import interleaved, timed_ms
from bluesky_jit.session.workers import Workers
from bluesky_jit.tomo.corrections.transmission import transmission_formula
from bluesky_jit.tomo.corrections.wanted import Corrections
from bluesky_jit.tomo.kernels.numba import NumbaKernel
from bluesky_jit.tomo.live import FilteredBackprojection
from bluesky_jit.tomo.prepare import FrameInfo, Preparation
from bluesky_jit.tomo.ramp import RowFilter, filter_formula, filtered, make_filter
from bluesky_jit.tomo.window import quantise

FRAME_MS = (4.5, 3.0)
"""Floor and goal of a frame on one core, ..."""
UPDATE_MS = (2.5, 1.0)
"""... of a slice after each frame, ..."""
FFT_OF_BEST = 1.4
"""... and of the row filter, as a multiple of the best FFT's time (issue 3)."""
ROWS = 32
"""Rows that the peers' FFTs take at once, so that what they work on stays in the cache."""
EVERYTHING = Corrections(zinger_threshold=0.1, air_columns=8, hardening=(1.0, 0.02), ring_width=9, ring_projections=150)


def frame_figures(turn: Turn, *, rounds: int) -> list[Figure]:
    """Measure frames from raw counts to an int16 slot, in one thread; the peer does the same with NumPy and SciPy."""
    slot = np.zeros_like(turn.slots.values[0])
    frames = _endless(turn)

    def through(preparation: Preparation) -> None:
        quantise(preparation.filtered(*next(frames))[0], slot)

    plain = Preparation(turn.geometry, dark_flat=turn.dark_flat())
    reference, row_filter = turn.dark_flat().reference_at(), make_filter(turn.geometry)

    def formulas() -> None:
        counts, _ = next(frames)
        values = filter_formula(
            -np.log(transmission_formula(counts, reference)[0]), row_filter.weight, row_filter.response
        )
        scale = np.abs(values).max() / 32767
        slot[1:-1, 1:-1] = np.rint(values / scale)

    everything = Preparation(turn.geometry, dark_flat=turn.dark_flat(), corrections=EVERYTHING)
    times = interleaved(
        {"ours": partial(through, plain), "formulas": formulas, "everything": partial(through, everything)},
        rounds=rounds,
    )
    shape = f"{turn.geometry.n_v}×{turn.geometry.n_u}"
    return [
        Figure(
            name=f"frame {shape}, raw counts to slot, 1 thread",
            value=float(np.median(times["ours"])),
            unit="ms",
            better="lower",
            floor=FRAME_MS[0],
            goal=FRAME_MS[1],
            peer=float(np.median(times["formulas"])),
            note="peer: the same formulas in NumPy, with its FFT",
        ),
        Figure(
            name=f"frame {shape} with zingers, drift, hardening and rings, 1 thread",
            value=float(np.median(times["everything"])),
            unit="ms",
            better="lower",
        ),
        fft_figure(turn, row_filter, rounds=rounds),
    ]


def fft_figure(turn: Turn, row_filter: RowFilter, *, rounds: int) -> Figure:
    """Compare the row filter with the best FFT there is: the same weight, padding, response and result, one thread."""
    preparation = Preparation(turn.geometry, dark_flat=turn.dark_flat())
    line_integrals, _ = preparation.line_integrals(*next(_endless(turn)))
    n_padded, n_u = len(row_filter.response), turn.geometry.n_u
    response = row_filter.response[: n_padded // 2 + 1]
    padded = np.zeros((ROWS, n_padded), dtype=np.float32)

    def in_blocks(convolve: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        result = np.empty_like(line_integrals)
        for first in range(0, len(line_integrals), ROWS):
            rows = slice(first, first + ROWS)
            result[rows] = convolve(line_integrals[rows] * row_filter.weight[rows])[:, :n_u]
        return result

    def by_scipy(rows: np.ndarray) -> np.ndarray:
        spectrum: Any = scipy.fft.rfft(rows, n=n_padded)
        spectrum *= response
        result: Any = scipy.fft.irfft(spectrum, n=n_padded, overwrite_x=True)
        return result

    def by_torch(rows: np.ndarray) -> np.ndarray:
        spectrum = torch.fft.rfft(torch.from_numpy(rows), n=n_padded)
        spectrum *= torch.from_numpy(response)
        return torch.fft.irfft(spectrum, n=n_padded).numpy()

    peers: dict[str, Callable[[np.ndarray], np.ndarray]] = {"scipy.fft": by_scipy, "torch.fft": by_torch}
    if installed("ducc0"):
        transforms: Any = import_module("ducc0.fft")

        def by_ducc(rows: np.ndarray) -> np.ndarray:
            block = padded[: len(rows)]
            block[:, :n_u] = rows
            spectrum = transforms.r2c(block, axes=(1,))
            spectrum *= response
            return transforms.c2r(
                spectrum, axes=(1,), lastsize=n_padded, forward=False, inorm=2, allow_overwriting_input=True
            )

        peers["ducc0"] = by_ducc
    torch.set_num_threads(1)
    expected = filtered(line_integrals, row_filter)
    for name, convolve in peers.items():
        if np.abs(in_blocks(convolve) - expected).max() > 1e-4 * np.abs(expected).max():
            raise RuntimeError(f"{name} does not give what our row filter gives: the comparison is not a fair one")
    times = interleaved(
        {"ours": lambda: filtered(line_integrals, row_filter)}
        | {name: partial(in_blocks, convolve) for name, convolve in peers.items()},
        rounds=rounds,
    )
    medians = {name: float(np.median(found)) for name, found in times.items()}
    best = min(peers, key=lambda name: medians[name])
    return Figure(
        name="row filter, time of ours as part of the best FFT's, 1 thread",
        value=float(np.median(times["ours"] / times[best])),
        unit="×",
        better="lower",
        goal=FFT_OF_BEST,
        note="ms: " + ", ".join(f"{name} {value:.2f}" for name, value in medians.items()),
    )


def update_figures(turn: Turn, *, frames: int) -> list[Figure]:
    """Measure slices that are asked for after every frame, by the way that a session takes, with one thread and two."""
    figures = []
    for threads in (1, 2):
        with Workers(threads) as workers:
            figures += _updates(turn, NumbaKernel(workers), frames, counted(threads))
    return figures


def _updates(turn: Turn, kernel: NumbaKernel, frames: int, threads: str) -> list[Figure]:
    n = len(turn.counts)
    live = FilteredBackprojection(turn.geometry, n_projections=n, kernel=kernel)
    live.push(turn.block("dark", turn.dark))
    live.push(turn.block("flat", turn.flat))
    live.push(turn.block("projection", turn.counts))
    jobs = {name: turn.jobs((grid,)) for name, grid in turn.grids.items()}
    whole = interleaved({name: partial(kernel.run, of) for name, of in jobs.items()}, rounds=2)
    # A slice is kept up to date from the second time on that it is asked for, and the first update is a warm-up.
    for grid in [*turn.grids.values()] * 2:
        live.slices((grid,))
    times: dict[str, list[float]] = {name: [] for name in ("push", *turn.grids)}
    for number in range(n, n + frames + 1):
        block = turn.block("projection", turn.counts[number % n][None], number)
        times["push"].append(timed_ms(partial(live.push, block)))
        for name, grid in turn.grids.items():
            times[name].append(timed_ms(partial(live.slices, (grid,))))
    made: list[Figure] = []
    for name in turn.grids:
        ms = times[name][1:]
        what = f"{name} slice {turn.points}² after each frame, {threads}"
        made.append(
            Figure(
                name=what,
                value=float(np.median(ms)),
                unit="ms",
                better="lower",
                floor=UPDATE_MS[0],
                goal=UPDATE_MS[1],
                peer=float(np.median(whole[name])),
                note=f"95 of 100 below {np.percentile(ms, 95):.2f} ms; peer: our own full pass over the turn",
            )
        )
    together = np.sum([found[1:] for found in times.values()], axis=0)
    made.append(
        Figure(
            name=f"frame taken in and three slices after it, {threads}",
            value=float(np.median(together)),
            unit="ms",
            better="lower",
            note=f"a frame comes every {1e3 * FRAME_S:g} ms; 95 of 100 below {np.percentile(together, 95):.1f} ms",
        )
    )
    return made


def _endless(turn: Turn) -> Iterator[tuple[np.ndarray, FrameInfo]]:
    """Return the turn's frames over and over, numbered on."""
    number = 0
    while True:
        angle = 2 * np.pi * number / len(turn.counts)
        yield turn.counts[number % len(turn.counts)], FrameInfo(angle_rad=angle, acquisition=number, time_s=0.0)
        number += 1
