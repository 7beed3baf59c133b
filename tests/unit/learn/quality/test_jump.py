"""Jumps of the data."""

from __future__ import annotations

import math

import numpy as np

from bluesky_jit.learn.quality.jump import JumpDetector


def ordinary(count: int, *, seed: int = 0) -> list[float]:
    return list(0.55 + 0.005 * np.random.default_rng(seed).normal(size=count))


def test_a_jump_is_two_deviations_running():
    detector = JumpDetector()
    assert not any(detector.update(value) for value in ordinary(50))
    assert [detector.update(value) for value in (0.70, 0.55, 0.70, 0.70)] == [False, False, False, True]


def test_deviations_within_two_hundredths_are_no_jump_however_quiet_it_was():
    detector = JumpDetector()
    assert not any(detector.update(value) for value in [0.55] * 30 + [0.569] * 5)
    assert [detector.update(value) for value in (0.60, 0.60)] == [False, True]


def test_learning_slow_drift_and_unknown_values_are_no_jump():
    detector = JumpDetector()
    learning = 0.52 + 0.6 * np.exp(-np.arange(100) / 10)
    drift = 0.52 + 0.0005 * np.arange(100)
    assert not any(detector.update(value) for value in [*learning, math.nan, *drift])


def test_after_a_jump_the_new_state_becomes_ordinary():
    detector = JumpDetector()
    values = [*ordinary(30), 0.8, 0.8, *ordinary(30, seed=1)]
    assert sum(detector.update(value) for value in values) == 1


NOISE_OF_A_BATCH = 0.028
"""Scatter of the accuracy of 32 fresh patches on experiments A and B, measured."""


def test_fast_learning_with_the_noise_of_batches_is_no_jump():
    """A hundred starts of learning as on experiment A, from 3 down to 0.55, of 500 batches each."""
    rng = np.random.default_rng(0)
    learning = 0.55 + 2.5 * np.exp(-np.arange(500) / 4) + 0.3 * np.exp(-np.arange(500) / 40)
    jumps = 0
    for _ in range(100):
        detector = JumpDetector()
        jumps += sum(detector.update(value) for value in learning + NOISE_OF_A_BATCH * rng.normal(size=500))
    assert jumps == 0


def test_a_jump_is_seen_at_once_through_the_noise_of_batches_even_while_learning():
    rng = np.random.default_rng(0)
    for _ in range(20):
        detector = JumpDetector()
        learning = 0.55 + 0.4 * np.exp(-np.arange(40) / 8) + NOISE_OF_A_BATCH * rng.normal(size=40)
        assert not any(detector.update(value) for value in learning)
        assert [detector.update(value) for value in (1.0, 1.0)] == [False, True]
