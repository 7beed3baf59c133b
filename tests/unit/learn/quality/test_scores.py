"""PSNR, SSIM and Dice."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bluesky_jit.learn.quality.scores import dice, psnr, ssim


def test_psnr_is_relative_to_the_range_of_the_truth():
    truth = np.zeros((20, 20))
    truth[:10] = 0.04
    assert psnr(truth + 0.004, truth) == pytest.approx(20.0)
    assert psnr(10 * (truth + 0.004), 10 * truth) == pytest.approx(20.0)
    assert psnr(truth, truth) == math.inf


def test_psnr_and_ssim_look_only_inside_a_mask(scene):
    mask = np.zeros(scene.truth.shape, dtype=bool)
    mask[50:200, 50:200] = True
    spoilt = scene.truth.copy()
    spoilt[~mask] = 9.0
    assert psnr(spoilt, scene.truth, mask=mask) == math.inf
    inner = np.zeros_like(mask)
    inner[60:190, 60:190] = True
    assert ssim(spoilt, scene.truth, mask=inner) == pytest.approx(1.0)


def test_less_noise_gives_better_ssim(scene):
    assert 0 < ssim(scene.u, scene.truth) < ssim((scene.u + scene.v) / 2, scene.truth) < 1


def test_a_truth_without_contents_is_refused():
    with pytest.raises(ValueError, match="same everywhere"):
        psnr(np.zeros((4, 4)), np.ones((4, 4)))


def test_dice_is_twice_what_is_shared_over_both():
    truth = np.zeros((10, 10), dtype=np.uint8)
    truth[:, :5] = 1
    half = np.zeros_like(truth)
    half[:5, :5] = 1
    assert dice(half, truth) == pytest.approx(2 * 25 / 75)
    assert dice(truth, truth) == 1
    assert dice(1 - truth, truth) == 0
    assert dice(half, truth, mask=half.astype(bool)) == 1
    assert dice(0 * truth, 0 * truth) == 1
    with pytest.raises(ValueError, match=r"labels are \(10, 9\)"):
        dice(truth[:, 1:], truth)
