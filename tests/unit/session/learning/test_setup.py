"""What is kept of a run's projections for learning, what is made do with, and how rates are measured."""

from __future__ import annotations

import pytest

from bluesky_jit.session.learning.setup import (
    Sequences,
    first_possible,
    reach_of,
    require_frames,
    require_learnable,
    sequences_of,
)
from bluesky_jit.session.rates import Rates
from bluesky_jit.settings_sections import LearnSettings

N = 150


def test_a_window_more_is_kept_for_projections_that_are_held_out() -> None:
    best, *others = sequences_of(LearnSettings(), N)
    assert (best.frames, best.history, best.problem) == (1, N, "")
    assert [other.history for other in others] == [0]


def test_time_frames_of_before_a_cut_and_of_after_it_are_kept() -> None:
    best, *others = sequences_of(LearnSettings(preset="t5", frame_spacing=60), N)
    assert reach_of(best, N) == N + 4 * 60
    # The oldest projection of a sequence that ends at the cut, when the one after it is complete.
    assert best.history + N == 2 * reach_of(best, N)
    assert [(other.frames, other.history) for other in others] == [(5, 0), (1, 0)]


@pytest.mark.parametrize("settings", [LearnSettings(enabled=False), LearnSettings(unseen_every=0)])
def test_nothing_more_is_kept_without_learning_or_without_held_out_windows(settings: LearnSettings) -> None:
    assert [sequences.history for sequences in sequences_of(settings, N)] == [0]


def test_what_is_not_possible_is_made_do_without_and_the_reason_is_told() -> None:
    def make(sequences: Sequences) -> str:
        if sequences.history:
            raise ValueError("there is no memory for it")
        return "made"

    sequences, made = first_possible(sequences_of(LearnSettings(), N), make)
    assert made == "made"
    assert sequences.problem.startswith("no windows are held out")
    assert sequences.problem.endswith(": there is no memory for it")


def test_what_is_not_possible_at_all_is_raised() -> None:
    def refuse(sequences: Sequences) -> None:
        raise ValueError("the detector is too large")

    with pytest.raises(ValueError, match="too large"):
        first_possible(sequences_of(LearnSettings(), N), refuse)


def test_a_preset_of_time_frames_needs_them_and_auto_does_not() -> None:
    require_frames(LearnSettings(preset="auto"), Sequences())
    with pytest.raises(ValueError, match="t3 looks at several time frames: no room"):
        require_frames(LearnSettings(preset="t3"), Sequences(problem="no room"))


def test_a_rate_is_of_the_last_whole_second() -> None:
    now = [0.0]
    rates = Rates("steps", clock=lambda: now[0])
    for now[0], steps, rate in [(0.5, 100, 0.0), (2.0, 500, 250.0), (2.9, 900, 250.0), (3.0, 600, 100.0)]:
        rates.update(steps=steps)
        assert rates["steps"] == rate


def test_a_count_that_starts_again_has_no_negative_rate() -> None:
    now = [0.0]
    rates = Rates("steps", clock=lambda: now[0])
    for now[0], steps in [(1.0, 100), (2.0, 10)]:
        rates.update(steps=steps)
    assert rates["steps"] == 0.0


def test_the_spacing_of_time_frames_is_looked_at_only_where_there_are_any() -> None:
    require_learnable(LearnSettings(splits=7))
    with pytest.raises(ValueError, match=r"frame_spacing is 60: give a multiple of learn\.splits, which is 7"):
        require_learnable(LearnSettings(splits=7, preset="t3"))


def test_a_run_that_is_too_short_for_time_frames_is_learned_without_or_says_why() -> None:
    best, *others = sequences_of(LearnSettings(preset="auto"), N, N + 2 * 60 - 1)
    assert [(one.frames, one.history) for one in (best, *others)] == [(1, N), (1, 0)]
    enough, *_ = sequences_of(LearnSettings(preset="auto"), N, N + 2 * 60)
    assert (enough.frames, enough.too_short) == (3, "")
    short, _ = first_possible(sequences_of(LearnSettings(preset="t3"), N, N + 2 * 60 - 1), lambda _: None)
    with pytest.raises(ValueError, match=r"3 of them take 270 projections .* and this run has 269: scan longer"):
        require_frames(LearnSettings(preset="t3"), short)
