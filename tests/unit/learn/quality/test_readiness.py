"""Whether denoised slices may be shown, and why not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bluesky_jit.learn.quality.accuracy import Accuracy
from bluesky_jit.learn.quality.readiness import Readiness
from bluesky_jit.learn.quality.residual import ResidualFigure, residual_figure


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def known(value: float, uncertainty: float = 0.015) -> Accuracy:
    """Return an accuracy known as well as that of 32 patches of 20×20 points of experiments A and B."""
    return Accuracy(value=value, uncertainty=uncertainty)


def ready_one(**settings) -> tuple[Readiness, Clock]:
    """Return a readiness that a good guard figure has made ready."""
    clock = Clock()
    readiness = Readiness(evaluations=1, clock=clock, **settings)
    assert readiness.update(known(0.6))
    return readiness, clock


def residual(*findings: str) -> ResidualFigure:
    u, v = np.random.default_rng(0).normal(size=(2, 96, 96))
    honest = residual_figure((u + v) / 2, np.zeros((96, 96)), u, v)
    assert (honest.judged, honest.findings) == (True, ())
    return replace(honest, findings=findings, verdict="; ".join(findings) or honest.verdict)


def test_ready_only_after_several_evaluations_running_below_the_limit_with_its_margin():
    readiness = Readiness(evaluations=3)
    assert [readiness.update(known(value)) for value in (0.60, 0.60, 0.74, 0.60, 0.60, 0.60)] == [False] * 5 + [True]
    assert "0.600" in readiness.reason
    assert readiness.held_out == 0.60


def test_once_ready_the_margin_does_not_count_but_the_limit_does():
    readiness = Readiness(evaluations=1)
    values = (0.70, 0.74, 0.75, 0.74, 0.71)
    assert [readiness.update(known(value)) for value in values] == [True, True, False, False, True]


@pytest.mark.parametrize(("uncertainty", "ready"), [(0.002, True), (0.01, False)])
def test_the_margin_is_two_standard_errors_of_the_figure(uncertainty, ready):
    readiness = Readiness(evaluations=1)
    assert readiness.update(Accuracy(value=0.74, uncertainty=uncertainty)) is ready
    if not ready:
        assert "0.740 ± 0.010 must fall below 0.730" in readiness.reason


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, "not a number"),
        (0.9, "the raw slice is better"),
        (0.74, "must fall below 0.720"),
        (0.6, "1 of 3"),
    ],
)
def test_the_reason_says_why_not(value, words):
    readiness = Readiness()
    assert "waiting" in readiness.reason
    assert not readiness.update(known(value))
    assert words in readiness.reason


def test_before_there_is_an_unseen_window_readiness_is_provisional():
    readiness, _ = ready_one()
    assert readiness.provisional
    assert readiness.reason.startswith("provisional: accuracy 0.600 in the guard region")
    assert "never trained on there is none yet" in readiness.reason
    assert readiness.unseen(Accuracy(value=0.55, uncertainty=0.01))
    assert not readiness.provisional
    assert readiness.held_out == 0.55
    assert "accuracy 0.550 on projections never trained on is below 0.75" in readiness.reason


def test_what_counts_is_the_unseen_figure_and_a_bad_one_counts_until_a_better_one_comes():
    readiness, clock = ready_one()
    assert not readiness.unseen(known(0.8))
    clock.now_s = 1000.0
    assert not readiness.update(known(0.6))
    assert "accuracy on projections never trained on 0.800 is not below 0.75" in readiness.reason
    assert readiness.unseen(known(0.6))


def test_a_good_unseen_figure_that_is_old_makes_readiness_provisional_again():
    readiness, clock = ready_one(oldest_unseen_s=100.0)
    readiness.unseen(known(0.55))
    clock.now_s = 101.0
    assert readiness.update(known(0.6))
    assert readiness.provisional
    assert readiness.held_out == 0.6
    assert "the last is 101 s old" in readiness.reason


def test_old_figures_bring_the_raw_slice_back_while_learning_goes_on_and_not_while_it_is_paused():
    readiness, clock = ready_one(oldest_s=20.0)
    clock.now_s = 21.0
    assert readiness.judge(learning=False)
    assert not readiness.judge()
    assert "21 s old, so the raw slice is shown" in readiness.reason
    assert readiness.update(known(0.6))


def test_a_whole_slice_that_is_worse_than_raw_is_named():
    readiness, _ = ready_one()
    assert readiness.whole("XY", Accuracy(value=0.6, uncertainty=0.01))
    assert not readiness.whole("XZ", Accuracy(value=0.78, uncertainty=0.01))
    assert readiness.reason == "XZ: accuracy of the whole slice 0.780 is not below 0.75: the raw slice is better"
    assert readiness.whole("XZ", Accuracy(value=0.6, uncertainty=0.01))


def test_a_residual_that_speaks_against_it_is_named_until_a_better_one_comes_or_the_slice_is_moved():
    readiness, _ = ready_one()
    assert readiness.residual("XY", residual())
    assert not readiness.residual("XZ", residual("blurred: so and so"))
    assert readiness.reason == "XZ: blurred: so and so"
    assert readiness.residual("XZ", residual())
    readiness.residual("XZ", residual("blurred: so and so"))
    assert readiness.forget("XZ")


def test_a_bad_accuracy_and_a_bad_residual_are_both_told():
    readiness, _ = ready_one()
    readiness.residual("XY", residual("offset: so and so"))
    readiness.update(known(0.8))
    assert readiness.reason == (
        "held-out accuracy 0.800 is not below 0.75: the raw slice is better; XY: offset: so and so"
    )


def test_a_residual_that_could_not_be_judged_changes_nothing():
    readiness, _ = ready_one()
    small = np.zeros((8, 8))
    assert readiness.residual("XY", residual_figure(small, small, small, small))


def test_accuracy_better_than_ideal_is_not_celebrated():
    readiness = Readiness(evaluations=1)
    assert readiness.update(known(0.40))
    assert "differ by more than noise" in readiness.reason
    assert "learnt by heart" in readiness.reason


def test_reset_takes_readiness_back():
    readiness, _ = ready_one()
    readiness.unseen(known(0.55))
    readiness.reset("learning was reset")
    assert (readiness.ready, readiness.provisional, readiness.reason) == (False, True, "learning was reset")
    assert math.isnan(readiness.held_out)
    assert not readiness.judge()
    assert readiness.reason == "learning was reset"


def test_luck_hardly_ever_shows_a_denoiser_that_is_as_good_as_raw():
    """With the noise of real batches, in 200 runs of 100 evaluations of a network of accuracy 0.75."""
    rng = np.random.default_rng(0)
    shown = 0
    for _ in range(200):
        readiness = Readiness()
        shown += any(readiness.update(known(value)) for value in 0.75 + 0.015 * rng.normal(size=100))
    assert shown <= 2


def test_every_network_that_is_good_enough_is_shown_soon_without_an_unseen_window():
    rng = np.random.default_rng(0)
    for _ in range(50):
        readiness = Readiness()
        assert any(readiness.update(known(value)) for value in 0.65 + 0.015 * rng.normal(size=5))
