"""How fast presets train and denoise: every preset takes its turn in each round, so that a busy machine slows all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from bluesky_jit.bench.pair_source import BATCH
from bluesky_jit.learn.model import make_denoiser, make_model
from bluesky_jit.learn.presets import Preset, preset_named
from bluesky_jit.messages import Pairs

SLICE_POINTS = 1024
"""Points across the slice that is denoised, as in the paper's Table 1."""
PIECE_S = 0.2
"""How long a preset trains in each round, at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Hold what a preset does in a second with some threads: samples trained on, and slices denoised."""

    preset: str
    threads: int
    samples_per_s: float
    slices_per_s: float


def measure(presets: Sequence[str], *, threads: Sequence[int], rounds: int, points: int) -> list[Throughput]:
    """Return the median over rounds of each preset's rates.

    One thread is timed in its CPU seconds, so that what the core does for others meanwhile does not count; more threads
    in wall time, and after it, for those that are done with their work spin on for a while. points: across the slice.
    """
    contestants = {name: _Contestant(preset_named(name), points) for name in presets}
    kept = torch.get_num_threads()
    steps: dict[tuple[str, int], list[float]] = {}
    slices: dict[tuple[str, int], list[float]] = {}
    try:
        for count, number in product(sorted(threads), range(rounds + 1)):
            torch.set_num_threads(count)
            clock = time.thread_time if count == 1 else time.perf_counter
            for name in presets if number % 2 else presets[::-1]:
                steps.setdefault((name, count), []).append(contestants[name].step_s(clock))
                slices.setdefault((name, count), []).append(contestants[name].slice_s(clock))
    finally:
        torch.set_num_threads(kept)
    # The first round does not count.
    return [
        Throughput(
            preset=name,
            threads=count,
            samples_per_s=BATCH / float(np.median(times[1:])),
            slices_per_s=1 / float(np.median(slices[name, count][1:])),
        )
        for (name, count), times in steps.items()
    ]


class _Contestant:
    """Train one preset on one batch of noise over and over, and denoise a slice of noise."""

    def __init__(self, preset: Preset, points: int) -> None:
        rng = np.random.default_rng(0)
        shape = (BATCH, preset.frames, preset.depth, preset.patch, preset.patch)
        u, v = rng.standard_normal((2, *shape), dtype=np.float32)
        self._pairs = Pairs(u=u, v=v)
        self._slab = rng.standard_normal((preset.frames, preset.depth, points, points), dtype=np.float32)
        self._model = make_model(preset)
        self._model.train_step(self._pairs)
        self._denoiser = make_denoiser(preset)
        self._denoiser.load(self._model.snapshot())

    def step_s(self, clock: Callable[[], float]) -> float:
        """Return the time of a training step."""
        steps, began = 0, clock()
        while clock() - began < PIECE_S:
            self._model.train_step(self._pairs)
            steps += 1
        return (clock() - began) / steps

    def slice_s(self, clock: Callable[[], float]) -> float:
        """Return the time of a slice."""
        began = clock()
        self._denoiser.apply(self._slab)
        return clock() - began
