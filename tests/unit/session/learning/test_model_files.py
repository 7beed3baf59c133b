"""What is kept of a run's learning, and what the next one makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learning_run import LearningRun, small_frames

from bluesky_jit.learn import automatic
from bluesky_jit.learn.registry import Registry


@pytest.fixture(scope="module")
def streams() -> dict[str, np.ndarray]:
    return small_frames(turns=2)


def trained(streams: dict[str, np.ndarray], *, steps: int, **learn: Any) -> LearningRun:
    run = LearningRun(streams, **learn)
    run.push(90)
    run.learn(steps)
    return run


def kept(streams: dict[str, np.ndarray], folder: Path, **learn: Any) -> LearningRun:
    """Return a run that was ready at its end, whose model is therefore kept."""
    run = trained(streams, steps=300, registry=str(folder), **learn)
    run.learner._judging.readiness.ready = True
    run.learner.finish()
    return run


def test_what_a_run_has_learned_is_what_the_next_one_starts_from(streams: dict, tmp_path: Path) -> None:
    first = kept(streams, tmp_path)
    [entry] = Registry(tmp_path).entries()
    assert entry.fingerprint.run_uid == "r"
    assert entry.figures["held_out"] == pytest.approx(first.learner.learning(paused=False).held_out)
    second = trained(streams, steps=170, registry=str(tmp_path))
    cold = trained(streams, steps=170)
    learned = second.learner.learning(paused=False)
    assert learned.chosen.startswith("started from a registered model")
    assert learned.held_out < cold.learner.learning(paused=False).held_out - 0.05


def test_a_model_that_is_no_better_than_a_fresh_one_is_not_used(streams: dict, tmp_path: Path) -> None:
    first = kept(streams, tmp_path)
    registry = Registry(tmp_path)
    [entry] = registry.entries()
    weights = first.learner.weights
    assert weights is not None
    for tensor in weights.tensors.values():
        tensor.mul_(2.0)
    registry.save(weights, entry.fingerprint, {})
    second = trained(streams, steps=170, registry=str(tmp_path))
    assert second.learner.learning(paused=False).chosen.startswith("started from nothing: it is no better")


def test_a_run_whose_slices_were_not_denoised_leaves_no_model(streams: dict, tmp_path: Path) -> None:
    run = trained(streams, steps=30, registry=str(tmp_path))
    run.learner.finish()
    assert Registry(tmp_path).entries() == ()


def test_a_folder_that_cannot_be_written_is_told_and_learning_goes_on(streams: dict, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    run = kept(streams, blocked, checkpoint_folder=str(blocked), checkpoint_every_s=1e-6)
    texts = [problem.text for problem in run.problems]
    # Once, though it is tried again and again.
    assert sum("no checkpoint could be written" in text for text in texts) == 1
    assert any("could not be kept" in text for text in texts)
    assert run.learner.learning(paused=False).step == 300


def test_a_run_that_comes_again_goes_on_from_its_checkpoint(streams: dict, tmp_path: Path) -> None:
    how: dict[str, Any] = {"checkpoint_folder": str(tmp_path), "checkpoint_every_s": 1e-6}
    first = trained(streams, steps=40, **how)
    again = LearningRun(streams, **how)
    step = again.learner.learning(paused=False).step
    assert step == first.learner.learning(paused=False).step - first.learner.learning(paused=False).step % 20
    assert again.learner._windows.trained_to == 89
    other = LearningRun(streams, run_uid="other", **how)
    assert other.learner.learning(paused=False).step == 0


def test_a_checkpoint_of_another_preset_is_told_and_left_alone(streams: dict, tmp_path: Path) -> None:
    how: dict[str, Any] = {"checkpoint_folder": str(tmp_path), "checkpoint_every_s": 1e-6}
    trained(streams, steps=40, **how)
    again = LearningRun(streams, preset="fast", **how)
    [problem] = again.problems
    assert "learning starts from nothing: the checkpoint is of preset unet-fast" in problem.text
    assert again.learner.learning(paused=False).step == 0


@pytest.fixture
def short_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = automatic.Automatic.__init__.__kwdefaults__
    monkeypatch.setattr(automatic.Automatic.__init__, "__kwdefaults__", {**defaults, "cpu_s": 0.3})


def test_what_auto_has_chosen_is_kept_and_goes_on_without_another_trial(
    streams: dict, tmp_path: Path, short_trial: None
) -> None:
    how: dict[str, Any] = {
        "preset": "auto",
        "registry": str(tmp_path / "models"),
        "checkpoint_folder": str(tmp_path / "checkpoints"),
        "checkpoint_every_s": 1e-6,
    }
    first = LearningRun(streams, **how)
    first.push(90 + 2 * 60)
    for _ in range(100):
        first.learn(10)
        if first.learner.weights is not None:
            break
    learned, weights = first.learner.learning(paused=False), first.learner.weights
    assert weights is not None
    first.learner._judging.readiness.ready = True
    first.learner.finish()
    [entry] = Registry(tmp_path / "models").entries()
    assert entry.fingerprint.preset == learned.preset
    assert entry.fingerprint.noise > 0

    again = LearningRun(streams, **how)
    assert again.problems == []
    resumed = again.learner.learning(paused=False)
    assert (resumed.preset, resumed.step) == (learned.preset, weights.step)
    assert resumed.chosen == f"{learned.chosen}; learning goes on from a checkpoint of step {resumed.step}"
    assert again.learner._making.buffer.capacity == first.learner._making.buffer.capacity
    again.push(90 + 2 * 60)
    again.learn(25)
    assert again.learner.learning(paused=False).preset == learned.preset
    assert again.learner.learning(paused=False).step > resumed.step + 10


def test_training_that_goes_on_looks_for_no_model_of_an_earlier_run(streams: dict, tmp_path: Path) -> None:
    how: dict[str, Any] = {"checkpoint_folder": str(tmp_path / "checkpoints"), "checkpoint_every_s": 1e-6}
    kept(streams, tmp_path / "models", **how)
    again = trained(streams, steps=30, registry=str(tmp_path / "models"), **how)
    assert again.learner.learning(paused=False).chosen == "learning goes on from a checkpoint of step 300"
    # It is kept with this run's noise all the same.
    again.learner._judging.readiness.ready = True
    again.learner.finish()
    assert len(Registry(tmp_path / "models").entries()) == 2
