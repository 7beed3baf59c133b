"""Which rates are tried, and which of them a session sustains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bluesky_jit.bench.arrivals import Arrival, Delays
from bluesky_jit.bench.streamed import PAPER, SLOWER_HZ, Step, growth_s, rates

SOON = Delays(frames=100, unseen=0, p50_ms=120.0, p95_ms=200.0, p99_ms=250.0)
GOOD = Step(
    rate_hz=83.0,
    reached_hz=83.0,
    frames=100,
    raw=SOON,
    denoised=None,
    growth_s=0.0,
    lost=0,
    shed={},
    updates_per_s=10.0,
    training_per_s=50.0,
    session_cores=0.5,
    camera_cores=0.2,
    other_cores=0.0,
    session_frame_ms=6.0,
    camera_frame_ms=2.0,
)


def tried(sustained: Callable[[float], bool], *, camera_hz: float = np.inf) -> list[float]:
    """Return the rates that are tried where those that `sustained` picks are."""
    steps: list[Step] = []
    for rate_hz, _ in rates(PAPER, steps):
        reached_hz = min(rate_hz, camera_hz)
        steps.append(replace(GOOD, rate_hz=rate_hz, reached_hz=reached_hz, lost=0 if sustained(rate_hz) else 1))
    return [step.rate_hz for step in steps]


def test_rates_are_raised_until_one_is_not_sustained():
    assert tried(lambda rate_hz: rate_hz < 130) == [*PAPER.rates_hz[:3], 144.0]


def test_rates_are_lowered_from_the_papers_until_one_is_sustained():
    assert tried(lambda rate_hz: rate_hz < 50) == [PAPER.rates_hz[0], *SLOWER_HZ[:3]]


def test_no_rate_is_tried_beyond_what_the_camera_reaches():
    assert tried(lambda rate_hz: True, camera_hz=110.0) == list(PAPER.rates_hz[:3])


def test_the_first_rate_is_measured_longest():
    steps = [GOOD]
    assert [seconds for _, seconds in rates(PAPER, steps)][:2] == [PAPER.measure_s, PAPER.step_s]


@pytest.mark.parametrize(
    "what",
    [
        {"lost": 1},
        {"growth_s": 0.2},
        {"raw": replace(SOON, p95_ms=1100.0)},
        {"denoised": replace(SOON, p95_ms=1100.0)},
    ],
)
def test_a_rate_with_losses_a_backlog_or_late_slices_is_not_sustained(what):
    assert GOOD.sustained
    assert not replace(GOOD, **what).sustained


def test_a_backlog_that_grows_shows_in_the_last_frames():
    times_s = np.arange(90) / 10
    steady = [Arrival(arrived_s=time_s + 0.1, frame_time_s=time_s) for time_s in times_s.tolist()]
    growing = [Arrival(arrived_s=1.1 * time_s + 0.1, frame_time_s=time_s) for time_s in times_s.tolist()]
    assert growth_s(times_s, steady) == pytest.approx(0.0)
    # From the middle of the first third to that of the last: 6 s, a tenth of it late.
    assert growth_s(times_s, growing) == pytest.approx(0.6)
