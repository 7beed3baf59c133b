"""Training."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch

from bluesky_jit.learn import quality
from bluesky_jit.learn.buffer import PairBuffer
from bluesky_jit.learn.denoiser import Denoiser
from bluesky_jit.learn.presets import PRESETS
from bluesky_jit.learn.weights import Weights
from bluesky_jit.learn.trainer import Trainer
from bluesky_jit.messages import Pairs


@pytest.fixture(params=sorted(PRESETS))
def name(request) -> str:
    return request.param


def trained(scene, name: str, steps: int, *, seed: int = 0) -> Trainer:
    trainer = Trainer(name, seed=seed)
    go_on(trainer, scene, steps)
    return trainer


def go_on(trainer: Trainer, scene, steps: int, *, seed: int = 0) -> list[float]:
    buffer = PairBuffer(320, seed=seed)
    buffer.push(scene.pairs(320, seed=seed))
    return [trainer.train_step(buffer.sample(32)) for _ in range(steps)]


def same(first: Weights, second: Weights) -> bool:
    return (first.step, first.mean, first.scale) == (second.step, second.mean, second.scale) and all(
        torch.equal(first.tensors[key], second.tensors[key]) for key in first.tensors
    )


def test_a_few_hundred_steps_beat_the_raw_slice_on_data_not_trained_on(scene, name):
    trainer = trained(scene, name, 300)
    assert trainer.accuracy(scene.held_out) < 0.65
    denoiser = Denoiser(name)
    denoiser.load(trainer.snapshot())
    right = np.s_[:, scene.truth.shape[1] // 2 :]
    truth, raw = scene.truth[right], ((scene.u + scene.v) / 2)[right]
    denoised = denoiser.apply(raw[None, None])
    assert quality.psnr(denoised, truth) > quality.psnr(raw, truth) + 3.0
    assert quality.ssim(denoised, truth) > quality.ssim(raw, truth) + 0.2


def test_the_loss_falls_from_the_contrast_towards_one(scene, name):
    losses = go_on(Trainer(name, seed=0), scene, 300)
    assert losses[0] > 1.2
    assert 0.9 < np.mean(losses[-20:]) < 1.15


def test_the_same_seed_and_pairs_give_the_same_weights_bit_for_bit(scene, name):
    first, second = (trained(scene, name, 40).snapshot() for _ in range(2))
    assert same(first, second)
    assert not same(first, trained(scene, name, 40, seed=1).snapshot())


def test_reset_starts_from_the_seed_again(scene, name):
    trainer = trained(scene, name, 20)
    first = trainer.snapshot()
    trainer.reset()
    assert trainer.step == 0
    go_on(trainer, scene, 20)
    assert same(trainer.snapshot(), first)


def test_a_snapshot_is_not_touched_by_later_steps_and_pickles(scene):
    trainer = trained(scene, "unet-fast", 20)
    snapshot = trainer.snapshot()
    copy = pickle.loads(pickle.dumps(snapshot))  # noqa: S301 (our own bytes)
    go_on(trainer, scene, 20)
    assert same(snapshot, copy)
    assert not same(snapshot, trainer.snapshot())


def test_a_checkpoint_goes_on_bit_for_bit(scene, name, tmp_path):
    trainer = trained(scene, name, 30)
    trainer.save(tmp_path / "checkpoint.pt")
    go_on(trainer, scene, 30, seed=1)
    resumed = Trainer(name, seed=99)
    resumed.load(tmp_path / "checkpoint.pt")
    go_on(resumed, scene, 30, seed=1)
    assert same(trainer.snapshot(), resumed.snapshot())


def test_a_checkpoint_of_another_preset_or_version_is_refused(scene):
    state = trained(scene, "fast", 2).state_dict()
    with pytest.raises(ValueError, match="checkpoint is of preset fast and this trainer of unet-fast"):
        Trainer("unet-fast").load_state_dict(state)
    with pytest.raises(ValueError, match="version 7"):
        Trainer("fast").load_state_dict({**state, "version": 7})


def test_the_normalisation_is_the_median_and_the_noise_of_one_half(scene):
    snapshot = trained(scene, "fast", 20).snapshot()
    left = np.s_[:, : scene.truth.shape[1] // 2]
    assert snapshot.mean == pytest.approx(np.median(scene.u[left]), abs=1e-3)
    assert snapshot.scale == pytest.approx(0.02, rel=0.02)


def test_units_do_not_matter(scene):
    """Attenuation in 1/mm or 1/m trains the same network, so nothing has to be tuned to the sample."""
    pairs = scene.pairs(32, seed=0)
    plain, scaled = Trainer("fast"), Trainer("fast")
    for _ in range(20):
        plain.train_step(pairs)
        scaled.train_step(Pairs(u=1024 * pairs.u, v=1024 * pairs.v))
    assert scaled.accuracy(Pairs(u=1024 * pairs.u, v=1024 * pairs.v)) == pytest.approx(plain.accuracy(pairs), rel=1e-3)


def spoilt(pairs: Pairs, value: float) -> Pairs:
    u = pairs.u.copy()
    u[3, 0, 0, 4, 5] = value
    return Pairs(u=u, v=pairs.v)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, "1 of 12800 values of u are not finite"),
        (math.inf, "1 of 12800 values of u are not finite"),
        (3e38, "the loss is .* and may be"),
        (1e9, "the loss is .* and may be"),
    ],
)
def test_a_batch_with_absurd_values_is_refused_and_leaves_no_trace(scene, value, words):
    pairs = scene.pairs(32, seed=0)
    trainer, untouched = trained(scene, "fast", 5), trained(scene, "fast", 5)
    with pytest.raises(ValueError, match=words):
        trainer.train_step(spoilt(pairs, value))
    for each in (trainer, untouched):
        go_on(each, scene, 5)
    assert same(trainer.snapshot(), untouched.snapshot())


def test_a_spoilt_first_batch_is_recovered_from(scene):
    trainer = Trainer("fast")
    trainer.train_step(spoilt(scene.pairs(32, seed=0), 1e6))
    go_on(trainer, scene, 300)
    assert trainer.snapshot().scale == pytest.approx(0.02, rel=0.02)
    assert trainer.accuracy(scene.held_out) < 0.65


def test_identical_views_are_refused(scene):
    pairs = scene.pairs(32, seed=0)
    with pytest.raises(ValueError, match="u and v are identical"):
        Trainer("fast").train_step(Pairs(u=pairs.u, v=pairs.u))


def test_slabs_of_another_depth_are_refused():
    slabs = np.random.default_rng(0).normal(size=(2, 1, 3, 20, 20)).astype(np.float32)
    with pytest.raises(ValueError, match="takes 1 frames of 1 slices, and was given 1 of 3"):
        Trainer("fast").train_step(Pairs(u=slabs, v=-slabs))


def test_accuracy_is_unknown_before_the_first_step(scene):
    assert math.isnan(Trainer("fast").accuracy(scene.pairs(4, seed=0)))


def test_measuring_accuracy_does_not_change_training(scene):
    watched, plain = Trainer("fast"), Trainer("fast")
    for step in range(10):
        pairs = scene.pairs(32, seed=step)
        watched.accuracy(pairs)
        watched.train_step(pairs)
        plain.train_step(pairs)
    assert same(watched.snapshot(), plain.snapshot())


def test_after_restarting_the_average_it_follows_fast(scene):
    trainer = trained(scene, "fast", 200)
    before = trainer.snapshot()
    kept, restarted = Trainer("fast"), Trainer("fast")
    for each in (kept, restarted):
        each.load_state_dict(trainer.state_dict())
    restarted.restart_average()
    moved = []
    for each in (kept, restarted):
        go_on(each, scene, 1, seed=5)
        after = each.snapshot()
        moved.append(sum(float((after.tensors[key] - before.tensors[key]).norm()) for key in before.tensors))
    assert moved[1] > 5 * moved[0]
