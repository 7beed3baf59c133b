"""The preset "auto" in a run: several are tried, one goes on with pairs of its own shape; and two classes learned."""

from __future__ import annotations

import numpy as np
import pytest
from learning_run import LearningRun, small_frames

from bluesky_jit.learn import automatic
from bluesky_jit.learn.presets import preset_named


@pytest.fixture(scope="module")
def streams() -> dict[str, np.ndarray]:
    return small_frames(turns=2)


def test_auto_chooses_a_preset_says_why_and_goes_on_with_it(streams: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        automatic.Automatic.__init__, "__kwdefaults__", {**automatic.Automatic.__init__.__kwdefaults__, "cpu_s": 0.3}
    )
    run = LearningRun(streams, preset="auto", frame_spacing=20)
    run.push(180)
    for _ in range(400):
        run.learn(1)
        if run.learner.learning(paused=False).chosen:
            break
        assert not run.learner.ready
        assert run.learner.weights is None
    learned = run.learner.learning(paused=False)
    chosen = preset_named(learned.preset)
    assert learned.chosen.startswith(f"auto chose {chosen.name}: its held-out accuracy")
    assert "buffer " in learned.chosen
    step = learned.step
    run.learn(25)
    assert run.learner.learning(paused=False).step > step
    assert run.learner.weights is not None
    assert run.learner.weights.preset == chosen.name
    assert run.learner._making.buffer.sample(1).u.shape[2] == chosen.depth


def test_auto_does_without_time_frames_where_there_can_be_none(streams: dict) -> None:
    run = LearningRun(streams, preset="auto", window="whole-turns")
    assert run.run.sequences.frames == 1
    [problem] = run.problems
    assert "time frames cannot be made" in problem.text
    run.push(90)
    run.learn(20)
    assert run.learner.learning(paused=False).pairs > 0


def test_two_classes_are_learned_beside_and_shown_once_better_than_a_threshold(streams: dict) -> None:
    run = LearningRun(streams, segment=True)
    run.push(90)
    run.learn(20)
    assert run.learner.segmentation is None
    for _ in range(30):
        run.learn(20)
        if run.learner.segmentation is not None:
            break
    assert run.learner.segmentation is not None
    assert run.learner.segmentation.preset == "segmentation"
    run.learner.reset()
    run.learner.train()
    assert run.learner.segmentation is None
