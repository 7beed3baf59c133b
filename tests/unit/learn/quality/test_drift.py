"""Slow change of the accuracy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bluesky_jit.learn.quality.drift import Drift


def followed(per_minute: float, *, minutes: float = 5, noise: float = 0.028, seed: int = 0) -> Drift:
    """Return a drift that has seen a batch a second; `noise` is that of real batches of 32 patches."""
    rng = np.random.default_rng(seed)
    now = 0.0
    drift = Drift(clock=lambda: now)
    for second in range(round(60 * minutes)):
        now = float(second)
        drift.update(0.55 + per_minute * second / 60 + noise * rng.normal())
    return drift


def test_a_slow_worsening_is_a_figure_and_words():
    figure = followed(0.02).figure()
    assert figure.per_minute == pytest.approx(0.02, abs=4 * figure.uncertainty)
    assert figure.uncertainty < 0.003
    assert figure.change == pytest.approx(0.02 * figure.over_s / 60, rel=0.3)
    assert "accuracy of new pairs worsened by 0.0" in figure.words
    assert "over the last 4.7 min" in figure.words


def test_learning_on_is_told_as_improvement():
    assert "improved by" in followed(-0.02).figure().words


def test_noise_is_no_drift():
    words = [followed(0.0, seed=seed).figure().words for seed in range(50)]
    assert all(it.startswith("steady") for it in words)


def test_a_change_too_small_to_matter_is_no_drift_however_sure():
    assert followed(0.002, noise=0.0001).figure().words.startswith("steady")


def test_nothing_is_said_before_there_is_enough_or_after_a_reset():
    drift = followed(0.02, minutes=0.9)
    assert math.isnan(drift.figure().per_minute)
    assert drift.figure().words == "not watched for long enough"
    drift = followed(0.02)
    drift.reset()
    assert math.isnan(drift.update(0.6))


def test_only_the_last_minutes_count_and_unknown_values_do_not():
    now = 0.0
    trend = math.nan
    drift = Drift(memory_s=120, clock=lambda: now)
    for second in range(600):
        now = float(second)
        drift.update(math.nan)
        trend = drift.update(0.9 if second < 300 else 0.55)
    assert trend == pytest.approx(0, abs=1e-6)
    assert drift.figure().over_s == pytest.approx(110, abs=10)
