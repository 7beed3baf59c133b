"""Total variation as a model: no network, one number."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bluesky_jit.learn.model import make_denoiser, make_model
from bluesky_jit.learn.quality.scores import psnr
from bluesky_jit.learn.total_variation import TotalVariation, TotalVariationDenoiser, denoise
from bluesky_jit.messages import Pairs

RIGHT = np.s_[:, 128:]


def tuned(scene, steps: int = 40, *, seed: int = 0) -> TotalVariation:
    model = TotalVariation()
    for step in range(steps):
        model.train_step(scene.pairs(8, seed=seed + step))
    return model


@pytest.fixture(scope="module")
def model(scene) -> TotalVariation:
    return tuned(scene)


@pytest.mark.parametrize(("preset", "depth"), [("tv", 1), ("tv-z3", 3)])
def test_it_is_a_preset_like_any_other(preset, depth):
    model, denoiser = make_model(preset, seed=3), make_denoiser(preset)
    assert isinstance(model, TotalVariation)
    assert isinstance(denoiser, TotalVariationDenoiser)
    u, v = np.random.default_rng(0).normal(size=(2, 4, 1, depth, 20, 20)).astype(np.float32)
    model.train_step(Pairs(u=u, v=v))
    denoiser.load(model.snapshot())
    assert denoiser.apply(u[0]).shape == (20, 20)


def test_the_weight_found_on_pairs_is_the_best_for_slices_of_all_projections(scene, model):
    """Without the truth, on another half of the scene: within a quarter of a dB of the best weight of a fine row."""
    denoiser = TotalVariationDenoiser()
    denoiser.load(model.snapshot())
    truth, raw = scene.truth[RIGHT], ((scene.u + scene.v) / 2)[RIGHT]
    best = max(psnr(denoise(raw[None] / 0.02, weight=weight) * 0.02, truth) for weight in np.geomspace(0.2, 2.0, 16))
    found = psnr(denoiser.apply(raw[None, None]), truth)
    assert found > best - 0.25
    assert found > psnr(raw, truth) + 6.0


def test_slices_of_all_projections_take_a_smaller_weight_by_the_root_of_two(scene, model):
    weights = model.snapshot()
    assert float(weights.tensors["weight"]) == pytest.approx(model.state_dict()["weight"] / math.sqrt(2), rel=0.03)
    assert weights.scale == pytest.approx(0.02, rel=0.05)


def test_of_four_splits_the_slice_has_half_the_noise_of_one():
    rng = np.random.default_rng(0)
    splits = rng.normal(size=(4, 8, 1, 1, 20, 20)).astype(np.float32)
    model = TotalVariation()
    model.train_step(Pairs(u=splits[0], v=splits[1:].mean(axis=0)))
    assert float(model.snapshot().tensors["weight"]) / model.state_dict()["weight"] == pytest.approx(0.5, rel=0.05)


def test_of_pure_noise_nothing_is_left_and_the_weight_stays_within_reason():
    rng = np.random.default_rng(0)
    model = TotalVariation()
    for _ in range(25):
        u, v = rng.normal(size=(2, 4, 1, 1, 20, 20)).astype(np.float32)
        model.train_step(Pairs(u=u, v=v))
    assert 10 < model.state_dict()["weight"] <= 100
    assert model.accuracy(Pairs(u=u, v=v)).value == pytest.approx(0.5, abs=0.05)


def test_accuracy_on_held_out_pairs_beats_the_raw_slice(scene, model):
    assert model.accuracy(scene.held_out).value < 0.6
    assert math.isnan(TotalVariation().accuracy(scene.held_out).value)


def test_the_slices_around_help_and_only_the_middle_frame_counts(scene, model):
    denoiser = TotalVariationDenoiser()
    denoiser.load(model.snapshot())
    rng = np.random.default_rng(5)
    slab = scene.truth + 0.014 * rng.normal(size=(3, 3, *scene.truth.shape)).astype(np.float32)
    alone, together = denoiser.apply(slab[1:2, 1:2]), denoiser.apply(slab)
    assert together.shape == scene.truth.shape
    assert psnr(together, scene.truth) > psnr(alone, scene.truth) + 0.5
    assert np.array_equal(denoiser.apply(slab[1:2]), together)


def test_ten_times_the_attenuation_finds_the_same_weight(scene):
    small, large = TotalVariation(), TotalVariation()
    for step in range(10):
        pairs = scene.pairs(8, seed=step)
        small.train_step(pairs)
        large.train_step(Pairs(u=8 * pairs.u, v=8 * pairs.v))
    assert large.snapshot().tensors["weight"] == pytest.approx(float(small.snapshot().tensors["weight"]), rel=1e-3)


def test_after_a_jump_it_looks_far_and_wide_from_where_it_was(scene, model):
    other = TotalVariation()
    other.load_state_dict(model.state_dict())
    other.restart_average()
    state = other.state_dict()
    assert (state["ratio"], state["compared"]) == (2.0, 0)
    assert state["weight"] == model.state_dict()["weight"]


def test_it_goes_on_from_a_checkpoint_or_from_weights(scene, model, tmp_path):
    model.save(tmp_path / "tv.pt")
    resumed, warm = TotalVariation(), TotalVariation()
    resumed.load(tmp_path / "tv.pt")
    assert resumed.state_dict() == model.state_dict()
    warm.load_weights(model.snapshot())
    assert warm.step == 0
    assert warm.state_dict()["weight"] == pytest.approx(model.state_dict()["weight"], rel=0.03)
    assert warm.accuracy(scene.held_out).value == pytest.approx(model.accuracy(scene.held_out).value, abs=0.01)


def test_what_cannot_be_learnt_from_is_refused_counted_and_leaves_no_other_trace(scene):
    model = TotalVariation()
    pairs = scene.pairs(4, seed=0)
    spoilt = pairs.u.copy()
    spoilt[0, 0, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        model.train_step(Pairs(u=spoilt, v=pairs.v))
    with pytest.raises(ValueError, match="identical"):
        model.train_step(Pairs(u=pairs.u, v=pairs.u))
    assert model.refused == 2
    assert model.state_dict() == {**TotalVariation().state_dict(), "refused": 2}


def test_weights_of_a_network_or_without_meaning_are_refused(model):
    with pytest.raises(ValueError, match="weights are of preset fast"):
        TotalVariationDenoiser().load(replace(model.snapshot(), preset="fast"))
    with pytest.raises(ValueError, match="start without them"):
        TotalVariation().load_weights(replace(model.snapshot(), scale=math.nan))
    with pytest.raises(RuntimeError, match="no weights yet"):
        TotalVariationDenoiser().apply(np.zeros((1, 1, 8, 8), dtype=np.float32))
