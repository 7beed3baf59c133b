"""Time contestants in turns, so that whatever else the machine does slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

SETTLE_S = 0.02
"""Pause before each contestant: threads of the one before may spin for some ms (OpenMP's do), then they sleep."""
Contestants = Mapping[str, Callable[[], object]]


def interleaved(contestants: Contestants, *, rounds: int) -> dict[str, np.ndarray]:
    """Return the time of each in each round, float64 (rounds,) in ms, after a round that does not count.

    Every other round goes through them in the opposite order.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        order = list(contestants) if number % 2 else list(contestants)[::-1]
        for name in order:
            time.sleep(SETTLE_S)
            times[name].append(timed_ms(contestants[name]))
    return {name: np.array(found[1:]) for name, found in times.items()}


def timed_ms(function: Callable[[], object]) -> float:
    """Run a function; return how long it took."""
    began = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - began)


def median_ms(times: Mapping[str, np.ndarray], name: str) -> float | None:
    """Return a contestant's median, None when it was not there."""
    return float(np.median(times[name])) if name in times else None


def times_as_fast(times: Mapping[str, np.ndarray], ours: str, other: str) -> float:
    """Return how many times as fast as the other ours is: the median over rounds of the ratio within a round."""
    return float(np.median(times[other] / times[ours]))
