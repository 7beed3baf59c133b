"""The empirical accuracy and its uncertainty."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bluesky_jit.learn.quality.accuracy import (
    BEATS_RAW,
    SUSPICIOUS,
    accuracy_of_patches,
    accuracy_of_slice,
    beats_raw,
    mean_of,
    middle,
    suspicious,
)
from bluesky_jit.messages import Pairs


def test_accuracy_of_no_denoising_is_one(scene):
    pairs = scene.pairs(64, seed=1)
    assert accuracy_of_patches(middle(pairs.u), pairs).value == pytest.approx(1.0)


def test_accuracy_of_the_truth_is_a_half(scene):
    held_out = scene.held_out
    truth = scene.truth[None, :, scene.truth.shape[1] // 2 :]
    assert accuracy_of_patches(truth, held_out).value == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("splits", [2, 3, 5])
def test_the_limits_are_the_accuracies_of_the_raw_slice_and_of_a_perfect_one(splits):
    """Measured as if the raw slice, the mean of all splits, could be judged by a target that it does not contain."""
    rng = np.random.default_rng(0)
    u, *others = rng.normal(size=(splits, 400, 400))
    target, raw = np.mean(others, axis=0), np.sqrt(1 / splits) * rng.normal(size=(400, 400))
    noise = np.sum((u - target) ** 2)
    assert np.sum((raw - target) ** 2) / noise == pytest.approx(beats_raw(splits), abs=0.01)
    assert 0.9 * np.sum(target**2) / noise == pytest.approx(suspicious(splits), abs=0.01)
    assert (BEATS_RAW, SUSPICIOUS) == (0.75, 0.45)


def test_accuracy_is_the_mean_over_pairs_of_the_middle_slices():
    u = np.zeros((2, 3, 1, 2, 2), dtype=np.float32)
    v = np.ones_like(u)
    v[:, [0, 2]] = 77.0
    denoised = np.stack([np.full((2, 2), 0.5), np.zeros((2, 2))]).astype(np.float32)
    assert accuracy_of_patches(denoised, Pairs(u=u, v=v)).value == pytest.approx((0.25 + 1.0) / 2)


def test_accuracy_leaves_out_pairs_without_noise_and_is_not_a_number_without_any():
    u = np.zeros((2, 1, 1, 4, 4), dtype=np.float32)
    v = u.copy()
    assert math.isnan(accuracy_of_patches(u[:, 0, 0], Pairs(u=u, v=v)).value)
    v[1] = 1.0
    assert accuracy_of_patches(u[:, 0, 0], Pairs(u=u, v=v)).value == 1.0


def test_the_uncertainty_of_patches_is_the_scatter_between_batches(scene):
    held_out = [scene.pairs(32, seed=seed) for seed in range(100)]
    figures = [accuracy_of_patches(0.9 * middle(pairs.u), pairs) for pairs in held_out]
    assert np.mean([it.uncertainty for it in figures]) == pytest.approx(np.std([it.value for it in figures]), rel=0.25)


@pytest.mark.parametrize("count", [2, 4, 8, 32])
def test_two_uncertainties_are_exceeded_as_seldom_however_few_patches_there_are(count):
    """By one mean in forty, though few patches tell their own scatter badly."""
    rng = np.random.default_rng(0)
    found = [mean_of(values) for values in 0.76 + 0.08 * rng.normal(size=(20_000, count))]
    below = np.mean([it.value < 0.76 - 2 * it.uncertainty for it in found])
    assert below == pytest.approx(0.0228, abs=0.005)


def test_the_uncertainty_of_a_single_patch_is_the_scatter_between_such_patches():
    """It comes from the blocks within it."""
    rng = np.random.default_rng(0)
    found = []
    for u, v in rng.normal(size=(200, 2, 1, 1, 1, 96, 96)):
        found.append(accuracy_of_patches(0.3 * u[:, 0, 0], Pairs(u=u, v=v)))
    assert np.mean([it.uncertainty for it in found]) == pytest.approx(np.std([it.value for it in found]), rel=0.15)


def test_the_uncertainty_of_a_slice_is_the_scatter_between_scans():
    """A denoiser that keeps some noise, on noise that is stronger in places: known to about a tenth."""
    rng = np.random.default_rng(0)
    strength = np.linspace(0.5, 2, 96)
    figures = []
    for _ in range(200):
        u, v = strength * rng.normal(size=(2, 96, 96))
        figures.append(accuracy_of_slice(0.3 * u, u, v))
    assert np.mean([it.uncertainty for it in figures]) == pytest.approx(np.std([it.value for it in figures]), rel=0.15)
    assert np.mean([it.value for it in figures]) == pytest.approx((1 + 0.3**2) / 2, abs=0.01)


def test_the_accuracy_of_a_slice_counts_what_the_mask_holds_and_every_pixel_alike(samples):
    seen = samples["A"].pure_noise("XY")
    spoilt = np.where(seen.mask, seen.truth, 9.0)
    inside = accuracy_of_slice(spoilt, seen.u, seen.v, mask=seen.mask)
    assert inside.value == pytest.approx(0.5, abs=3 * inside.uncertainty)
    assert inside.uncertainty < 0.01
    assert accuracy_of_slice(spoilt, seen.u, seen.v).value > 10


def test_padding_shows_in_the_accuracy_of_a_whole_slice_and_not_in_that_of_patches(scene):
    """A network that spoils the borders of whatever it is given, as one that pads with zeros may."""
    u, v = scene.u, scene.v

    def bordered(image: np.ndarray) -> np.ndarray:
        spoilt = scene.truth.copy()
        spoilt[:8] = spoilt[-8:] = spoilt[:, :8] = spoilt[:, -8:] = 0
        return spoilt

    whole = accuracy_of_slice(bordered(u), u, v)
    inner = np.s_[8:-8, 8:-8]
    assert whole.value > accuracy_of_slice(scene.truth[inner], u[inner], v[inner]).value + 0.05


def test_nothing_to_measure_has_no_accuracy():
    flat = np.ones((32, 32), dtype=np.float32)
    for found in (accuracy_of_slice(flat, flat, flat), mean_of([])):
        assert math.isnan(found.value)
        assert math.isinf(found.uncertainty)
    lonely = Pairs(u=np.zeros((1, 1, 1, 4, 4)), v=np.ones((1, 1, 1, 4, 4)))
    for found in (accuracy_of_patches(np.ones((1, 4, 4)), lonely), mean_of([0.0])):
        assert found.value == 0
        assert math.isinf(found.uncertainty)
    with pytest.raises(ValueError, match=r"A\(u\) is \(4, 4\), u \(32, 32\)"):
        accuracy_of_slice(flat[:4, :4], flat, flat)
