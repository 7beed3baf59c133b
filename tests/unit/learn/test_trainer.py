"""Training."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from bluesky_jit.learn.buffer import PairBuffer
from bluesky_jit.learn.denoiser import Denoiser
from bluesky_jit.learn.presets import PRESETS
from bluesky_jit.learn.quality.scores import psnr, ssim
from bluesky_jit.learn.trainer import Trainer
from bluesky_jit.learn.weights import Weights
from bluesky_jit.messages import Pairs


@pytest.fixture(params=["fast", "unet-fast"])
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
    assert trainer.accuracy(scene.held_out).value < 0.65
    denoiser = Denoiser(name)
    denoiser.load(trainer.snapshot())
    right = np.s_[:, scene.truth.shape[1] // 2 :]
    truth, raw = scene.truth[right], ((scene.u + scene.v) / 2)[right]
    denoised = denoiser.apply(raw[None, None])
    assert psnr(denoised, truth) > psnr(raw, truth) + 3.0
    assert ssim(denoised, truth) > ssim(raw, truth) + 0.2


def test_the_loss_falls_from_the_contrast_towards_one(scene, name):
    losses = go_on(Trainer(name, seed=0), scene, 300)
    assert losses[0] > np.mean(losses[-20:])
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
    brighter = Pairs(u=1024 * pairs.u, v=1024 * pairs.v)
    assert scaled.accuracy(brighter).value == pytest.approx(plain.accuracy(pairs).value, rel=1e-3)


def spoilt(pairs: Pairs, value: float) -> Pairs:
    u = pairs.u.copy()
    u[3, 0, 0, 4, 5] = value
    return Pairs(u=u, v=pairs.v)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, "1 of 12800 values of u are not finite"),
        (math.inf, "1 of 12800 values of u are not finite"),
        (3e38, "the loss is nan and may be"),
        (1e9, "the loss is .* and may be"),
    ],
)
def test_a_batch_with_absurd_values_is_refused_counted_and_leaves_no_other_trace(scene, value, words):
    pairs = scene.pairs(32, seed=0)
    trainer, untouched = trained(scene, "fast", 5), trained(scene, "fast", 5)
    with pytest.raises(ValueError, match=words):
        trainer.train_step(spoilt(pairs, value))
    assert (trainer.step, trainer.refused) == (5, 1)
    for each in (trainer, untouched):
        go_on(each, scene, 5)
    assert same(trainer.snapshot(), untouched.snapshot())


def test_a_refused_step_is_not_in_the_optimiser_either(scene):
    """The loss of 1e9 squared is refused after its gradient was made: Adam must not have seen it."""
    trainer = trained(scene, "standard", 3)
    before = trainer.state_dict()["optimiser"]
    before = {key: {name: tensor.clone() for name, tensor in values.items()} for key, values in before.items()}
    with pytest.raises(ValueError, match="the loss is"):
        trainer.train_step(spoilt(scene.pairs(32, seed=0), 1e9))
    after = trainer.state_dict()["optimiser"]
    assert all(torch.equal(after[key][name], before[key][name]) for key in before for name in before[key])


def test_a_gradient_whose_square_overflows_is_refused(scene):
    trainer = trained(scene, "fast", 1)
    state = trainer.state_dict()
    # Weights out of all proportion: the loss is small where the input is, and its gradient is not.
    state["network"] = {name: tensor * 1e12 for name, tensor in state["network"].items()}
    state["normalisation"]["first"] = ((0.0, 1.0),) * 10
    state["normalisation"] |= {"mean": 0.0, "scale": 1.0, "later": 1}
    trainer.load_state_dict(state)
    rng = np.random.default_rng(0)
    u = (1e-60**0.5 * rng.normal(size=(4, 1, 1, 20, 20))).astype(np.float32)
    v = rng.normal(size=u.shape).astype(np.float32)
    with pytest.raises(ValueError, match="its gradient"):
        trainer.train_step(Pairs(u=u, v=v))
    assert trainer.refused == 1
    assert all(tensor.isfinite().all() for tensor in trainer.snapshot().tensors.values())


def test_a_spoilt_first_batch_is_recovered_from(scene):
    trainer = Trainer("fast")
    trainer.train_step(spoilt(scene.pairs(32, seed=0), 1e6))
    go_on(trainer, scene, 300)
    assert trainer.snapshot().scale == pytest.approx(0.02, rel=0.02)
    assert trainer.accuracy(scene.held_out).value < 0.65


@pytest.mark.parametrize("preset", ["fast", "standard"])
def test_identical_views_are_refused(scene, preset):
    pairs, trainer = scene.pairs(32, seed=0), Trainer(preset)
    with pytest.raises(ValueError, match="u and v are identical"):
        trainer.train_step(Pairs(u=pairs.u, v=pairs.u))
    assert (trainer.step, trainer.refused) == (0, 1)


def test_constant_pairs_are_refused_for_they_hold_no_noise():
    flat = np.full((4, 1, 1, 20, 20), 0.25, dtype=np.float32)
    with pytest.raises(ValueError, match="differ by the same everywhere"):
        Trainer("fast").train_step(Pairs(u=flat, v=2 * flat))


def test_without_pairs_there_is_no_step():
    none = np.empty((0, 1, 1, 20, 20), dtype=np.float32)
    with pytest.raises(ValueError, match="n ≥ 1"):
        Trainer("fast").train_step(Pairs(u=none, v=none))


def test_one_lonely_pair_can_be_learnt_from(scene):
    trainer, pair = Trainer("fast"), scene.pairs(1, seed=0)
    losses = [trainer.train_step(pair) for _ in range(50)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert all(tensor.isfinite().all() for tensor in trainer.snapshot().tensors.values())


def test_the_papers_recipe_neither_normalises_nor_averages(scene):
    trainer = trained(scene, "standard", 3)
    snapshot = trainer.snapshot()
    assert (snapshot.mean, snapshot.scale) == (0.0, 1.0)
    network = trainer.state_dict()["network"]
    assert all(torch.equal(snapshot.tensors[name], network[name]) for name in network)


@pytest.mark.parametrize("preset", ["fast-z3", "unet-fast-t3", "z3", "t3"])
def test_slabs_of_several_slices_or_frames_are_learnt_from(preset):
    wanted = PRESETS[preset]
    rng = np.random.default_rng(0)
    u = rng.normal(size=(4, wanted.frames, wanted.depth, 20, 20)).astype(np.float32)
    trainer = Trainer(preset)
    losses = [trainer.train_step(Pairs(u=u, v=-u)) for _ in range(3)]
    assert np.isfinite(losses).all()
    assert math.isfinite(trainer.accuracy(Pairs(u=u, v=-u)).value)


def test_a_warm_start_is_as_good_as_the_weights_and_learns_on(scene):
    before = trained(scene, "fast", 200)
    warm = Trainer("fast", seed=7)
    warm.load_weights(before.snapshot())
    assert warm.step == 0
    assert warm.accuracy(scene.held_out).value == before.accuracy(scene.held_out).value
    go_on(warm, scene, 20, seed=3)
    assert warm.snapshot().step == 20
    assert not same(warm.snapshot(), before.snapshot())
    assert warm.accuracy(scene.held_out).value < before.accuracy(scene.held_out).value + 0.01


def test_weights_that_do_not_fit_or_are_not_finite_are_no_start(scene):
    weights = trained(scene, "fast", 2).snapshot()
    with pytest.raises(ValueError, match="weights are of preset fast and this trainer of unet-fast"):
        Trainer("unet-fast").load_weights(weights)
    name = next(iter(weights.tensors))
    spoilt_tensors = {**weights.tensors, name: torch.full_like(weights.tensors[name], math.nan)}
    with pytest.raises(ValueError, match=f"not finite \\({name}\\)"):
        Trainer("fast").load_weights(replace(weights, tensors=spoilt_tensors))


def test_slabs_of_another_depth_are_refused():
    slabs = np.random.default_rng(0).normal(size=(2, 1, 3, 20, 20)).astype(np.float32)
    with pytest.raises(ValueError, match="takes 1 frames of 1 slices, and was given 1 of 3"):
        Trainer("fast").train_step(Pairs(u=slabs, v=-slabs))


def test_accuracy_is_unknown_before_the_first_step(scene):
    assert math.isnan(Trainer("fast").accuracy(scene.pairs(4, seed=0)).value)


def test_two_trainers_that_go_on_from_one_state_do_not_touch_each_other(scene):
    state = trained(scene, "fast", 5).state_dict()
    first, second = Trainer("fast"), Trainer("fast")
    first.load_state_dict(state)
    go_on(first, scene, 5)
    second.load_state_dict(state)
    go_on(second, scene, 5)
    assert same(first.snapshot(), second.snapshot())


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
