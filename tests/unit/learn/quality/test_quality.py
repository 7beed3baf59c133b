"""Accuracy, readiness, jumps, PSNR and SSIM."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bluesky_jit.learn import quality
from bluesky_jit.learn.quality import JumpDetector, Readiness
from bluesky_jit.messages import Pairs


def test_accuracy_of_no_denoising_is_one(scene):
    pairs = scene.pairs(64, seed=1)
    assert quality.accuracy(quality.middle(pairs.u), pairs) == pytest.approx(1.0)


def test_accuracy_of_the_truth_is_a_half(scene):
    held_out = scene.held_out
    truth = scene.truth[None, :, scene.truth.shape[1] // 2 :]
    assert quality.accuracy(truth, held_out) == pytest.approx(0.5, abs=0.01)


def test_accuracy_of_the_mean_of_both_halves_as_seen_by_a_third_is_three_quarters():
    """The raw slice on show averages both halves: what the limit of readiness stands for."""
    rng = np.random.default_rng(0)
    u, v, target = rng.normal(size=(3, 50, 1, 1, 40, 40))
    error = np.sum(((u + v) / 2 - target) ** 2) / np.sum((u - target) ** 2)
    assert error == pytest.approx(quality.BEATS_RAW, abs=0.01)


def test_accuracy_is_the_mean_over_pairs_of_the_middle_slices():
    u = np.zeros((2, 3, 1, 2, 2), dtype=np.float32)
    v = np.ones_like(u)
    v[:, [0, 2]] = 77.0
    denoised = np.stack([np.full((2, 2), 0.5), np.zeros((2, 2))]).astype(np.float32)
    assert quality.accuracy(denoised, Pairs(u=u, v=v)) == pytest.approx((0.25 + 1.0) / 2)


def test_accuracy_leaves_out_pairs_without_noise_and_is_not_a_number_without_any():
    u = np.zeros((2, 1, 1, 4, 4), dtype=np.float32)
    v = u.copy()
    assert math.isnan(quality.accuracy(u[:, 0, 0], Pairs(u=u, v=v)))
    v[1] = 1.0
    assert quality.accuracy(u[:, 0, 0], Pairs(u=u, v=v)) == 1.0


def test_ready_only_after_several_evaluations_running_below_the_limit_with_its_margin():
    readiness = Readiness(evaluations=3)
    assert [readiness.update(value) for value in (0.60, 0.60, 0.74, 0.60, 0.60, 0.60)] == [False] * 5 + [True]
    assert "0.600" in readiness.reason
    assert readiness.held_out == 0.60


def test_once_ready_the_margin_does_not_count_but_the_limit_does():
    readiness = Readiness(evaluations=1)
    assert [readiness.update(value) for value in (0.70, 0.74, 0.75, 0.74, 0.71)] == [True, True, False, False, True]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, "not a number"),
        (0.9, "the raw slice is better"),
        (0.74, "must fall below 0.72"),
        (0.6, "1 of 3"),
    ],
)
def test_the_reason_says_why_not(value, words):
    readiness = Readiness()
    assert "waiting" in readiness.reason
    assert not readiness.update(value)
    assert words in readiness.reason


def test_accuracy_better_than_ideal_is_not_celebrated():
    readiness = Readiness(evaluations=1)
    assert readiness.update(0.40)
    assert "differ by more than noise" in readiness.reason


def test_reset_takes_readiness_back():
    readiness = Readiness(evaluations=1)
    readiness.update(0.6)
    readiness.reset("learning was reset")
    assert (readiness.ready, readiness.reason) == (False, "learning was reset")
    assert math.isnan(readiness.held_out)


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


def test_psnr_is_relative_to_the_range_of_the_truth():
    truth = np.zeros((20, 20))
    truth[:10] = 0.04
    assert quality.psnr(truth + 0.004, truth) == pytest.approx(20.0)
    assert quality.psnr(10 * (truth + 0.004), 10 * truth) == pytest.approx(20.0)
    assert quality.psnr(truth, truth) == math.inf


def test_psnr_and_ssim_look_only_inside_a_mask(scene):
    mask = np.zeros(scene.truth.shape, dtype=bool)
    mask[50:200, 50:200] = True
    spoilt = scene.truth.copy()
    spoilt[~mask] = 9.0
    assert quality.psnr(spoilt, scene.truth, mask=mask) == math.inf
    inner = np.zeros_like(mask)
    inner[60:190, 60:190] = True
    assert quality.ssim(spoilt, scene.truth, mask=inner) == pytest.approx(1.0)


def test_less_noise_gives_better_ssim(scene):
    assert 0 < quality.ssim(scene.u, scene.truth) < quality.ssim((scene.u + scene.v) / 2, scene.truth) < 1


def test_a_truth_without_contents_is_refused():
    with pytest.raises(ValueError, match="same everywhere"):
        quality.psnr(np.zeros((4, 4)), np.ones((4, 4)))
