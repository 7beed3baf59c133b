"""What a run learns, step by step: what is trained on, what is judged, and what becomes of changes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from learning_run import LearningRun, small_frames

from bluesky_jit.learn import region_finder
from bluesky_jit.learn.presets import preset_named
from bluesky_jit.learn.quality.jump import JumpDetector
from bluesky_jit.session.learning.judging import FailedJudgement, Judging
from bluesky_jit.session.learning.learner import Learner
from bluesky_jit.session.learning.pair_making import PairMaking

SOON = 400
"""Steps that a small network needs to be of use here."""


@pytest.fixture(scope="module")
def streams() -> dict[str, np.ndarray]:
    return small_frames(turns=4)


class Until:
    """Stand before a reconstruction and write down which projections pairs were made of."""

    def __init__(self, reconstruction: Any) -> None:
        self._reconstruction = reconstruction
        self.asked: list[tuple[int, int | None]] = []
        """The newest projection, and the one that the pairs' windows were to end at."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reconstruction, name)

    def pairs(self, grids: Any, *, until: int | None = None) -> Any:
        self.asked.append((self._reconstruction.newest, until))
        return self._reconstruction.pairs(grids, until=until)


def figures(learner: Learner) -> Any:
    return learner.learning(paused=False)


def trained(streams: dict[str, np.ndarray], *, turns: int = 1, steps: int = SOON, **learn: Any) -> LearningRun:
    """Return a run that has learned from so many turns."""
    run = LearningRun(streams, **learn)
    run.push(90 * turns)
    run.learn(steps)
    return run


# ── held-out windows ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_comes_between_a_cut_and_its_lifting_is_not_trained_on(streams: dict) -> None:
    run = trained(streams, unseen_every=2)
    spy = Until(run.run.reconstruction)
    run.run.reconstruction = spy  # type: ignore[assignment]
    learner, pushes = run.learner, []
    making = learner._making
    push = making.buffer.push

    def pushed(pairs: Any) -> None:
        pushes.append((*spy.asked[-1], learner._windows.is_cut))
        push(pairs)

    making.buffer.push = pushed  # type: ignore[method-assign]
    cuts: set[int] = set()
    judged = 0
    for _ in range(45):
        run.push(9)
        before = figures(learner).unseen
        run.learn(5)
        judged += figures(learner).unseen != before and not math.isnan(figures(learner).unseen)
    for newest, until, is_cut in pushes:
        assert until is not None
        if is_cut:
            cuts.add(until)
            assert newest - until <= 90 + 9
        else:
            assert until == newest
    assert judged >= 2
    # Every window that was judged began after the last projection that had been trained on by then.
    assert all(later - earlier >= 90 for earlier, later in zip(sorted(cuts), sorted(cuts)[1:], strict=False))
    assert figures(learner).unseen < 0.75


def test_unseen_windows_are_judged_as_patches_and_as_whole_slices(streams: dict) -> None:
    run = trained(streams)
    assert math.isnan(figures(run.learner).unseen)
    run.push(90)
    run.learn(40)
    learned = figures(run.learner)
    # The sample rests, so what was never trained on is as good as what was.
    assert learned.unseen == pytest.approx(learned.held_out, abs=0.08)
    assert learned.whole_slice < 0.8


def test_without_held_out_windows_no_projections_are_kept_in_store_for_them(streams: dict) -> None:
    run = trained(streams, unseen_every=0, steps=40)
    assert run.run.sequences.history == 0
    run.push(180)
    run.learn(40)
    assert math.isnan(figures(run.learner).unseen)


def test_without_held_out_windows_pairs_are_made_though_projections_come_meanwhile(streams: dict) -> None:
    run = trained(streams, unseen_every=0, steps=1)
    asked = Until(run.run.reconstruction)
    run.learner._making.make(asked, run.shown)  # type: ignore[arg-type]
    assert asked.asked[0][1] is None


def test_where_memory_is_short_slices_come_first_and_no_windows_are_held_out(streams: dict) -> None:
    rows, columns = streams["primary"].shape[1:]
    window = LearningRun(streams, unseen_every=0)
    needed = window.run.reconstruction._window  # type: ignore[union-attr]
    slot_gb = 2 * (rows * columns + 2 * np.prod(needed._store_shape[1:])) / 1e9
    run = LearningRun(streams, memory_gb=1.2 * needed.n_slots * slot_gb)
    [problem] = run.problems
    assert "no windows are held out" in problem.text
    assert "tomo.memory_gb" in problem.text
    run.push(90)
    run.learn(60)
    assert figures(run.learner).step > 0


def test_an_unseen_window_that_cannot_be_judged_does_not_keep_the_rest_from_training(
    streams: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(streams)
    cut = run.learner._windows.until(10**6)
    assert cut < 90
    monkeypatch.setattr(Judging, "whole", _refuse)
    run.push(90)
    with pytest.raises(FailedJudgement, match="the slice is too small"):
        run.learn(20)
    monkeypatch.undo()
    run.learn(10)
    assert not run.learner._windows.is_cut
    assert run.learner._windows.trained_to == 179


def test_an_unseen_window_that_cannot_be_made_does_not_keep_the_rest_from_training(
    streams: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(streams)
    run.push(90)
    monkeypatch.setattr(PairMaking, "_whole_slice", _refuse)
    with pytest.raises(ValueError, match="the slice is too small"):
        run.learn(1)
    monkeypatch.undo()
    run.learn(10)
    assert run.learner._windows.trained_to == 179


def _refuse(*_: Any) -> None:
    raise ValueError("the slice is too small")


# ── time frames and slabs ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("preset", ["fast-z3", "fast-t3", "z3", "tv"])
def test_presets_learn_from_pairs_of_their_shape(streams: dict, preset: str) -> None:
    run = trained(streams, turns=2, steps=6, preset=preset, frame_spacing=20)
    wanted = preset_named(preset)
    pairs = run.learner._making.buffer.sample(1)
    assert pairs.u.shape == (1, wanted.frames, wanted.depth, 16, 16)
    assert figures(run.learner).step == 6
    assert figures(run.learner).preset == preset


def test_a_preset_of_time_frames_is_refused_where_there_can_be_none(streams: dict) -> None:
    with pytest.raises(ValueError, match="looks at several time frames"):
        LearningRun(streams, preset="fast-t3", window="whole-turns")


# ── jumps ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_when_the_data_jumps_the_buffer_is_emptied_and_slices_are_raw_again(streams: dict) -> None:
    run = trained(streams, turns=2)
    run.learner._judging.readiness.ready = True
    old = run.learner._making.buffer.sample(160)
    moved = streams["primary"].copy()
    # Every other projection is shifted: the halves show different things from now on.
    moved[1::2] = np.roll(moved[1::2], 8, axis=2)
    run._streams = {**streams, "primary": moved}
    run.push(90)
    for _ in range(20):
        run.learn(1)
        if figures(run.learner).jumps:
            break
    after = figures(run.learner)
    assert after.jumps == 1
    assert not after.ready
    assert after.reason == "the data changed abruptly: learning it"
    assert math.isnan(after.unseen)
    assert after.buffered <= 2 * 32
    assert not np.isin(run.learner._making.buffer.sample(32).u[:, 0, 0, 8, 8], old.u[:, 0, 0, 8, 8]).any()


def jump(run: LearningRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next batch that comes in look like a jump."""
    notice = iter([True])
    monkeypatch.setattr(JumpDetector, "update", lambda *_: next(notice, False))
    before = figures(run.learner).jumps
    for _ in range(20):
        run.learner.train()
        if figures(run.learner).jumps > before:
            return
        run.learn(1)
    raise AssertionError("no batch came in")


def test_after_a_jump_training_goes_on_with_the_newest_projections_for_a_whole_window(
    streams: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(streams, turns=2)
    run.push(3)
    jump(run, monkeypatch)
    assert math.isnan(figures(run.learner).held_out)
    jumped_at = run.pushed - 1
    behind = []
    for _ in range(35):
        run.push(3)
        run.learn(4)
        behind.append((run.pushed - 1 - jumped_at, run.pushed - 1 - run.learner._windows.until(run.pushed - 1)))
    assert all(late == 0 for since, late in behind if since < 90)
    # Then the next window is kept back.
    assert behind[-1][1] > 0


def test_after_a_jump_the_sample_is_looked_for_when_a_whole_window_has_come(
    streams: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(streams, turns=2)
    jump(run, monkeypatch)
    jumped_at, looks = run.pushed - 1, []
    find = region_finder.find_sample

    def looked(reconstruction: Any) -> Any:
        looks.append(reconstruction.newest - jumped_at)
        return find(reconstruction)

    monkeypatch.setattr(region_finder, "find_sample", looked)
    for _ in range(40):
        run.push(3)
        run.learn(1)
    # The pairs stage hears of the jump with its next batch.
    assert looks == [3 + 90]


def test_what_was_made_before_a_jump_is_not_judged_after_it(streams: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(streams)
    run.push(90)
    # The pairs stage makes an unseen window, and the trainer takes what comes in first.
    run.learner._making.make(run.run.reconstruction, run.shown)  # type: ignore[arg-type]
    unseen = run.learner._making._unseen
    assert unseen is not None
    batch = run.learner._making.buffer.sample(32)
    run.learner._making.incoming.put(batch)
    monkeypatch.setattr(JumpDetector, "update", lambda *_: True)
    run.learner._watch_incoming()
    monkeypatch.undo()
    assert unseen.passed._value is False
    for _ in range(10):
        run.learn(1)
        assert math.isnan(figures(run.learner).unseen)
        assert math.isnan(figures(run.learner).whole_slice)


def test_what_is_made_while_a_jump_is_noticed_is_not_judged_either(
    streams: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(streams, turns=2)
    run.push(3)
    jump(run, monkeypatch)
    making = run.learner._making
    making._make_unseen(run.run.reconstruction, run.shown, run.pushed - 1)  # type: ignore[arg-type]
    making._make_guard(run.run.reconstruction)  # type: ignore[arg-type]
    run.learner.judge()
    assert math.isnan(figures(run.learner).unseen)
    assert math.isnan(figures(run.learner).held_out)


# ── odd data ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("counts", [0, 300, 65535], ids=["dark", "alike", "full"])
def test_projections_without_anything_in_them_never_spoil_the_weights(streams: dict, counts: int) -> None:
    run = trained(streams, steps=60)
    run._streams = {**streams, "primary": np.full_like(streams["primary"], counts)}
    run.push(180)
    refused = 0
    for _ in range(40):
        try:
            run.learn(1)
        except ValueError:
            refused += 1
    weights = run.learner.weights
    assert weights is not None
    assert all(bool(tensor.isfinite().all()) for tensor in weights.tensors.values())
    assert figures(run.learner).refused <= refused


# ── controls ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_flush_empties_the_buffer_and_keeps_the_weights(streams: dict) -> None:
    run = trained(streams, steps=60)
    step = figures(run.learner).step
    assert figures(run.learner).buffered == 160
    run.learner.flush()
    assert figures(run.learner).buffered == 0
    run.learn(1)
    assert figures(run.learner).step == step + 1


def test_a_reset_forgets_weights_pairs_and_figures(streams: dict) -> None:
    run = trained(streams, steps=100)
    assert run.learner.weights is not None
    run.learner.reset()
    run.learner.train()
    learned = figures(run.learner)
    assert (learned.step, learned.buffered, run.learner.weights) == (0, 0, None)
    assert math.isnan(learned.held_out)
    run.learn(30)
    assert 0 < figures(run.learner).step <= 30


def test_a_reset_while_training_is_paused_is_done_at_once(streams: dict) -> None:
    run = trained(streams)
    run.learner._judging.readiness.ready = True
    run.learner.reset()
    run.learner.judge(learning=False)
    learned = figures(run.learner)
    assert (learned.step, learned.buffered, learned.ready, run.learner.weights) == (0, 0, False, None)
    assert learned.reason == "learning was started afresh"


def test_while_training_is_paused_denoised_slices_go_on_being_judged(streams: dict) -> None:
    run = trained(streams)
    step = figures(run.learner).step
    run.push(90)
    for _ in range(4):
        run.learner.make_batch(run.run.reconstruction, run.shown, train=False)  # type: ignore[arg-type]
        run.learner.judge(learning=False)
    learned = figures(run.learner)
    assert learned.step == step
    # Nothing of the last turn was trained on.
    assert learned.unseen < 0.8


def test_the_same_seed_gives_the_same_weights(streams: dict) -> None:
    one, other = (trained(streams, steps=60).learner.weights for _ in range(2))
    assert one is not None
    assert other is not None
    for name, tensor in one.tensors.items():
        np.testing.assert_array_equal(tensor.numpy(), other.tensors[name].numpy())


def test_until_enough_projections_have_come_people_are_told_how_many_are_missing(streams: dict) -> None:
    run = LearningRun(streams, preset="fast-t3", frame_spacing=20)
    assert run.run.learning(paused=False).reason == "waiting for 130 more projections"
    run.push(60)
    run.learn(2)
    assert run.run.learning(paused=False).reason == "waiting for 70 more projections"
    assert run.run.learning(paused=True).reason == "learning is paused; waiting for 70 more projections"
    run.push(70)
    run.learn(2)
    assert run.run.learning(paused=False).pairs > 0
    assert "more projections" not in run.run.learning(paused=False).reason
