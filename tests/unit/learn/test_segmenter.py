"""Two classes, learnt from labels that a threshold gives."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from bluesky_jit.learn.quality.scores import dice
from bluesky_jit.learn.segmenter import Segmenter, SliceSegmenter
from bluesky_jit.learn.trainer import Trainer
from bluesky_jit.messages import Pairs

LOWER, UPPER, NOISE = 0.02, 0.06, 0.02
SIZE = 128


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """Blobs of one material in another, bool (ny, nx)."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:SIZE, : 2 * SIZE]
    inside = np.zeros((SIZE, 2 * SIZE), dtype=bool)
    for _ in range(40):
        cy, cx, radius = rng.uniform(0, SIZE), rng.uniform(0, 2 * SIZE), rng.uniform(4, 12)
        inside |= (y - cy) ** 2 + (x - cx) ** 2 < radius**2
    return inside


@pytest.fixture(scope="module")
def blobs(scene, truth):
    clean = np.where(truth, UPPER, LOWER).astype(np.float32)
    u, v = (clean + NOISE * np.random.default_rng(2).normal(size=(2, *clean.shape))).astype(np.float32)
    return replace(scene, truth=clean, u=u, v=v)


def trained(blobs, steps: int) -> Segmenter:
    model = Segmenter(seed=0)
    for step in range(steps):
        model.train_step(blobs.pairs(32, seed=step))
    return model


@pytest.fixture(scope="module")
def model(blobs) -> Segmenter:
    return trained(blobs, 200)


def test_a_place_that_was_never_trained_on_is_told_better_than_by_a_threshold(blobs, truth, model):
    segmenter = SliceSegmenter()
    segmenter.load(model.snapshot())
    right = np.s_[:, SIZE:]
    raw = ((blobs.u + blobs.v) / 2)[right]
    probability = segmenter.apply(raw[None, None])
    assert probability.dtype == np.float32
    assert 0 <= probability.min() < 0.05 < 0.95 < probability.max() <= 1
    told = dice(probability > 0.5, truth[right])
    assert told > 0.95
    assert told > dice(raw > model.snapshot().mean, truth[right]) + 0.05


def test_the_threshold_lies_between_the_materials(model):
    assert model.snapshot().mean == pytest.approx((LOWER + UPPER) / 2, abs=0.003)


def test_accuracy_counts_labels_missed_against_a_threshold_of_u(blobs, model):
    assert model.accuracy(blobs.held_out).value < 0.5
    assert math.isnan(Segmenter().accuracy(blobs.held_out).value)


def test_the_loss_falls_from_that_of_not_knowing_at_most(blobs):
    model = Segmenter(seed=0)
    losses = [model.train_step(blobs.pairs(32, seed=step)) for step in range(60)]
    assert losses[0] < math.log(2) + 0.1
    assert np.mean(losses[-10:]) < min(0.4, losses[0])


def test_it_goes_on_from_a_checkpoint_bit_for_bit(blobs, tmp_path):
    whole, half = trained(blobs, 24), trained(blobs, 12)
    half.save(tmp_path / "half.pt")
    resumed = Segmenter(seed=9)
    resumed.load(tmp_path / "half.pt")
    for step in range(12, 24):
        resumed.train_step(blobs.pairs(32, seed=step))
    first, second = whole.snapshot(), resumed.snapshot()
    assert (first.mean, first.scale) == (second.mean, second.scale)
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)


def test_it_starts_from_weights_with_their_threshold(blobs, model):
    warm = Segmenter(seed=9)
    warm.load_weights(model.snapshot())
    assert warm.accuracy(blobs.held_out).value == pytest.approx(model.accuracy(blobs.held_out).value)
    warm.train_step(blobs.pairs(32, seed=0))
    assert warm.snapshot().mean == pytest.approx(model.snapshot().mean, abs=0.003)


def test_of_slabs_it_takes_the_middle_slice(blobs, model):
    pairs = blobs.pairs(8, seed=0)

    def thick(images: np.ndarray) -> np.ndarray:
        return np.concatenate([images + 1, images, images - 1], axis=2)

    assert model.accuracy(Pairs(u=thick(pairs.u), v=thick(pairs.v))).value == model.accuracy(pairs).value
    segmenter = SliceSegmenter()
    segmenter.load(model.snapshot())
    assert np.array_equal(segmenter.apply(thick(pairs.u)[0]), segmenter.apply(pairs.u[0]))


def test_a_denoisers_weights_are_not_taken_for_a_segmentation(blobs):
    denoising = Trainer("unet-fast")
    denoising.train_step(blobs.pairs(4, seed=0))
    with pytest.raises(ValueError, match="weights are of preset unet-fast"):
        SliceSegmenter().load(denoising.snapshot())
    with pytest.raises(ValueError, match="weights are of preset unet-fast"):
        Segmenter().load_weights(denoising.snapshot())


def test_what_cannot_be_learnt_from_is_refused_and_counted(blobs):
    model, pairs = Segmenter(), blobs.pairs(4, seed=0)
    with pytest.raises(ValueError, match="identical"):
        model.train_step(Pairs(u=pairs.u, v=pairs.u))
    assert (model.step, model.refused) == (0, 1)
