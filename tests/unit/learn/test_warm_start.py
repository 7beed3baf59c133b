"""A registered model goes on only where it is better, on pairs that it has not learnt from, than a fresh one."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from experiment_pairs import experiment_batches, joined
from noisy_scene import BACKGROUND, NOISE, Scene, make_scene

from bluesky_jit.bench.experiments import HELD_OUT_START_S, TRAINING_START_S
from bluesky_jit.learn.buffer import PairBuffer
from bluesky_jit.learn.fingerprint import Fingerprint
from bluesky_jit.learn.model import Model, make_model
from bluesky_jit.learn.quality.readiness import Readiness
from bluesky_jit.learn.registry import Entry, Registry
from bluesky_jit.learn.warm_start import TRIAL_STEPS, WarmStart
from bluesky_jit.learn.weights import Weights
from bluesky_jit.messages import Pairs

FINGERPRINT = Fingerprint(preset="unet-fast", kind="cone", pixel_mm=0.2, voxel_mm=0.08, noise=NOISE)


def batches(scene: Scene, *, seed: int) -> Iterator[Pairs]:
    """Draw batches from a buffer that is fed as in a run."""
    buffer = PairBuffer(320, seed=seed)
    for step in range(10_000):
        if step % 5 == 0:
            buffer.push(scene.pairs(32, seed=10_000 * seed + step))
        yield buffer.sample(32)


def trained(scene: Scene, steps: int, *, seed: int) -> Model:
    model = make_model("unet-fast", seed=seed)
    for _, batch in zip(range(steps), batches(scene, seed=seed), strict=False):
        model.train_step(batch)
    return model


def grainy_scene() -> Scene:
    """A sample whose own grain is as fine as noise and ten times as strong: what was learnt there smooths nothing."""
    rng = np.random.default_rng(8)
    truth = BACKGROUND + 10 * NOISE * rng.normal(size=(256, 256))
    u, v = truth + NOISE * rng.normal(size=(2, 256, 256))
    return Scene(truth=truth.astype(np.float32), u=u.astype(np.float32), v=v.astype(np.float32))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


@pytest.fixture(scope="module")
def earlier() -> Weights:
    """What an earlier run learnt of a sample like this one."""
    return trained(make_scene(9), 300, seed=7).snapshot()


@pytest.fixture(scope="module")
def unlike() -> Weights:
    """What an earlier run learnt of a very different sample."""
    return trained(grainy_scene(), 400, seed=7).snapshot()


@pytest.fixture
def entry(registry: Registry, earlier: Weights) -> Entry:
    registry.save(earlier, FINGERPRINT, {"held_out": 0.515})
    found = registry.nearest(replace(FINGERPRINT, noise=1.2 * NOISE))
    assert found is not None
    return found


def tried(scene: Scene, entry: Entry | None, *, seed: int = 0, steps: int = TRIAL_STEPS) -> WarmStart:
    """Try an entry on a scene until it is decided."""
    trial = WarmStart(make_model("unet-fast", seed=seed), entry, steps=steps)
    for step, batch in enumerate(batches(scene, seed=seed)):
        if trial.start is not None:
            return trial
        trial.train_step(batch)
        if step % 20 == 0:
            trial.judge(scene.held_out)
    raise RuntimeError("it was never decided")


def steps_until_ready(model: WarmStart | Model, scene: Scene, *, below: float) -> int:
    """Train until three held-out accuracies running are good enough, judged after every step."""
    readiness = Readiness(limit=below)
    for step, batch in enumerate(batches(scene, seed=0)):
        model.train_step(batch)
        if isinstance(model, WarmStart):
            model.judge(scene.held_out)
        leader = model.leader if isinstance(model, WarmStart) else model
        if readiness.update(replace(leader.accuracy(scene.held_out), uncertainty=0.0)):
            return step + 1
    raise RuntimeError("it was never ready")


def test_a_model_of_a_similar_sample_is_used_and_the_reason_has_the_figures(scene, entry, caplog):
    with caplog.at_level(logging.INFO, logger="bluesky_jit.learn.warm_start"):
        trial = tried(scene, entry)

    start = trial.start
    assert start is not None
    assert start.warm
    assert start.model is trial.leader
    assert start.reason.startswith("started from a registered model: held-out accuracy 0.51")
    assert entry.path.name in start.reason
    assert "of a fresh one, after 100 steps of each" in start.reason
    assert start.reason in [record.getMessage() for record in caplog.records]


def test_with_a_registered_model_slices_are_ready_sooner(scene, entry):
    """Figures in steps, of three judgements running below an accuracy: a fresh network took 6 and 21."""
    for below, least in ((0.53, 4), (0.522, 15)):
        warm = steps_until_ready(WarmStart(make_model("unet-fast", seed=0), entry), scene, below=below)
        fresh = steps_until_ready(make_model("unet-fast", seed=0), scene, below=below)

        assert warm == 3
        assert fresh > least


@pytest.mark.parametrize(("name", "photons", "warm"), [("A", 600.0, True), ("B", 600.0, True), ("B", 10.0, False)])
def test_another_experiment_helps_and_nine_times_the_noise_does_not(tmp_path, registry, name, photons, warm):
    """Learnt of a tablet and tried on one of experiment A at another time, at 600 photons."""
    there = experiment_batches(name, tmp_path, start_s=HELD_OUT_START_S, count=20, seed=1, photons=photons)
    here = experiment_batches("A", tmp_path, start_s=TRAINING_START_S, count=20, seed=2)
    held_out = joined(experiment_batches("A", tmp_path, start_s=TRAINING_START_S, count=5, seed=3, guard=True))
    model = make_model("unet-fast", seed=5)
    for step in range(250):
        model.train_step(there[step % 20])

    trial = WarmStart(make_model("unet-fast", seed=0), registry.save(model.snapshot(), FINGERPRINT, {}))
    trial.judge(held_out)
    for step in range(TRIAL_STEPS):
        trial.train_step(here[step % 20])

    assert trial.start is not None
    assert trial.start.warm == warm, trial.start.reason


def test_a_model_that_is_worse_here_than_a_fresh_one_is_not_used(scene, registry, unlike):
    # In a hundred steps it would have learnt this sample as well.
    trial = tried(scene, registry.save(unlike, FINGERPRINT, {}), steps=20)

    assert trial.start is not None
    assert not trial.start.warm
    assert trial.start.reason.startswith("started from nothing: it is no better: held-out accuracy 0.5")


def test_a_fresh_model_that_is_kept_has_learnt_what_it_would_have_learnt_alone(scene, registry, unlike):
    # In a hundred steps it would have learnt this sample as well.
    trial = tried(scene, registry.save(unlike, FINGERPRINT, {}), steps=20)
    assert trial.start is not None
    alone = trained(scene, trial.start.model.step, seed=0).snapshot()

    for name, tensor in trial.start.model.snapshot().tensors.items():
        assert torch.equal(tensor, alone.tensors[name])


def test_without_a_near_model_it_starts_from_nothing_at_once():
    fresh = make_model("unet-fast", seed=0)
    trial = WarmStart(fresh, None)

    assert trial.start is not None
    assert trial.start.model is fresh
    assert trial.start.reason == "started from nothing: no registered model is near"


def test_damaged_weights_are_not_used_and_named(entry):
    entry.weights_file.write_bytes(entry.weights_file.read_bytes()[:-100])
    start = WarmStart(make_model("unet-fast", seed=0), entry).start

    assert start is not None
    assert not start.warm
    assert f"{entry.weights_file} is damaged" in start.reason


def test_weights_of_another_network_or_that_are_not_finite_are_not_used(registry, earlier):
    name = next(iter(earlier.tensors))
    strange = {
        "other layers": replace(earlier, tensors={"layer": torch.zeros(3)}),
        "another size": replace(earlier, tensors={**earlier.tensors, name: torch.zeros(1, 1, 3, 3)}),
        "not finite": replace(earlier, tensors={**earlier.tensors, name: earlier.tensors[name] * math.nan}),
        "no noise": replace(earlier, scale=0.0),
    }
    for why, weights in strange.items():
        entry = registry.save(weights, FINGERPRINT, {})
        start = WarmStart(make_model("unet-fast", seed=0), entry).start
        assert start is not None, why
        assert not start.warm
        assert f"the registered model {entry.path.name} cannot be used" in start.reason


def test_a_registered_model_that_spoils_the_steps_gives_way(scene, registry, earlier):
    huge = replace(earlier, tensors={name: 1e12 * tensor for name, tensor in earlier.tensors.items()})
    trial = tried(scene, registry.save(huge, FINGERPRINT, {}))

    assert trial.start is not None
    assert not trial.start.warm
    assert "could not learn from these pairs" in trial.start.reason
    assert trial.start.model.step == 1


def test_pairs_that_cannot_be_learnt_from_count_for_neither(scene, entry):
    trial = WarmStart(make_model("unet-fast", seed=0), entry)
    bad = scene.pairs(32, seed=0)
    bad.u[0] = math.nan

    with pytest.raises(ValueError, match="not finite"):
        trial.train_step(bad)

    assert trial.start is None
    assert trial.leader.step == 0


def test_it_is_not_decided_before_there_are_held_out_pairs(scene, entry):
    trial = WarmStart(make_model("unet-fast", seed=0), entry, steps=3)
    for _, batch in zip(range(5), batches(scene, seed=0), strict=False):
        trial.train_step(batch)
    assert trial.start is None

    trial.judge(scene.held_out)
    assert trial.start is not None
    assert "after 5 steps of each" in trial.start.reason


def test_the_registered_model_leads_before_the_fresh_one_has_learnt_anything(scene, entry):
    trial = WarmStart(make_model("unet-fast", seed=0), entry)
    trial.judge(scene.held_out)

    assert trial.start is None
    assert trial.leader.accuracy(scene.held_out).value < 0.52
    assert TRIAL_STEPS == 100
