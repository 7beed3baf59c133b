"""The preset "auto" tries presets on the sample for equal time, and takes the best that is in time."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
from experiment_pairs import experiment_batches, joined

from bluesky_jit.bench.experiments import HELD_OUT_START_S, TRAINING_START_S
from bluesky_jit.learn.automatic import (
    CANDIDATES,
    MOST_PAIRS,
    TIE,
    Automatic,
    Choice,
    Pace,
    buffer_for,
    cut,
    inference_s_of,
)
from bluesky_jit.learn.model import Model, make_model
from bluesky_jit.learn.presets import Preset, preset_named
from bluesky_jit.learn.quality.accuracy import Accuracy
from bluesky_jit.messages import Pairs

PACE = Pace(
    updates_per_s=10.0, slice_shapes=((64, 64), (48, 64), (48, 64)), slice_s=0.01, pairs_per_s=200.0, window_s=1.8
)


class StepClock:
    """A clock on which every step takes as long, so that the outcome is the same on every machine."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def __call__(self) -> float:
        self._now_s += 0.01
        return self._now_s


@dataclass
class Clock:
    """A clock that stands still until somebody moves it."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


class Fake:
    """A model whose accuracy and time for a step are given; it counts its steps and remembers what it was fed."""

    def __init__(self, preset: Preset, accuracy: float, clock: Clock, step_s: float) -> None:
        self.preset = preset
        self.step = 0
        self.fed: set[tuple[int, ...]] = set()
        self._accuracy = accuracy
        self._clock = clock
        self._step_s = step_s

    def train_step(self, pairs: Pairs) -> float:
        if not np.isfinite(pairs.u).all():
            raise ValueError("not finite")
        self.fed.add(pairs.u.shape[1:3])
        self._clock.now_s += self._step_s
        self.step += 1
        return 1.0

    def accuracy(self, pairs: Pairs) -> Accuracy:
        return Accuracy(value=self._accuracy + float(pairs.v.mean()))


def some_pairs(count: int = 4, *, frames: int = 3, depth: int = 3, value: float = 0.0) -> Pairs:
    zeros = np.zeros((count, frames, depth, 8, 8), dtype=np.float32)
    return Pairs(u=zeros + np.float32(value), v=zeros + np.float32(value))


def faked(
    accuracies: dict[str, float],
    *,
    inference_s: dict[str, float] | None = None,
    step_s: dict[str, float] | None = None,
    pace: Pace = PACE,
) -> tuple[Automatic, dict[str, Fake]]:
    """Make a trial of presets with given accuracies and times of inference."""
    models: dict[str, Fake] = {}
    clock = Clock()

    def make(preset: Preset) -> Model:
        models[preset.name] = Fake(preset, accuracies[preset.name], clock, (step_s or {}).get(preset.name, 0.01))
        return models[preset.name]  # type: ignore[return-value]

    automatic = Automatic(
        tuple(accuracies),
        seed=0,
        pace=lambda: pace,
        cpu_s=0.299,
        clock=clock,
        make=make,
        inference_s=lambda model, _: (inference_s or {}).get(model.preset.name, 0.0),
    )
    return automatic, models


def settled(automatic: Automatic, pairs: Pairs | None = None, region: Pairs | None = None) -> Choice:
    """Train and judge until there is a choice."""
    for _ in range(1000):
        automatic.train_step(pairs or some_pairs())
        automatic.judge(pairs or some_pairs(), region)
        if automatic.choice:
            return automatic.choice
    raise RuntimeError("it never chose")


ACCURACIES: dict[str, float] = dict(zip(CANDIDATES, (0.54, 0.52, 0.53), strict=True))


# ── on the sample ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Pairs of an experiment: to train on, to judge by (of the guard region), and of another time to check with."""

    batches: list[Pairs]
    held_out: list[Pairs]
    later: Pairs


@pytest.fixture(scope="module", params=["A", "B"])
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    pairs = partial(experiment_batches, request.param, tmp_path_factory.mktemp("recordings"), frames=3, depth=3)
    return Sample(
        batches=pairs(start_s=TRAINING_START_S, count=40, seed=1),
        held_out=pairs(start_s=TRAINING_START_S, count=8, seed=2, guard=True),
        later=joined(pairs(start_s=HELD_OUT_START_S, count=10, seed=3)),
    )


def on_sample(sample: Sample, *, steps: int = 120, pace: Pace = PACE) -> tuple[Choice, dict[str, Model]]:
    """Choose on an experiment, with so many steps of each; return also the models that were tried."""
    models: dict[str, Model] = {}

    def make(preset: Preset) -> Model:
        models[preset.name] = make_model(preset, seed=0)
        return models[preset.name]

    automatic = Automatic(
        seed=0, pace=lambda: pace, cpu_s=len(CANDIDATES) * 0.01 * (steps - 1.5), clock=StepClock(), make=make
    )
    for number in range(10_000):
        automatic.train_step(sample.batches[number % len(sample.batches)])
        if number % 20 == 0:
            automatic.judge(sample.held_out[number // 20 % len(sample.held_out)])
        if automatic.choice:
            return automatic.choice, models
    raise RuntimeError("it never chose")


def test_the_choice_is_the_one_that_is_best_at_another_time(sample):
    choice, models = on_sample(sample)

    later = {name: model.accuracy(cut(sample.later, model.preset)).value for name, model in models.items()}
    assert later[choice.preset.name] < min(later.values()) + TIE
    assert later[choice.preset.name] < later["unet-fast"] - TIE
    assert {model.step for model in models.values()} == {120}


def test_what_cannot_keep_up_gives_way_to_the_cheaper_on_the_sample(sample):
    choice, _ = on_sample(sample, steps=20, pace=replace(PACE, slice_s=0.05))

    assert choice.preset.name == "unet-fast"
    assert "of those that make 10 updates a second its held-out accuracy" in choice.reason


# ── the choice ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_best_is_chosen_and_the_reason_says_why(caplog):
    automatic, models = faked(ACCURACIES)
    with caplog.at_level(logging.INFO, logger="bluesky_jit.learn.automatic"):
        choice = settled(automatic)

    assert choice.preset.name == "unet-fast-z3"
    assert choice.model is models["unet-fast-z3"]
    assert choice.reason == (
        "auto chose unet-fast-z3: its held-out accuracy, 0.520, is best after 0.1 s of each "
        "(unet-fast 0.540, unet-fast-t3 0.530); buffer 360; patches mixed"
    )
    assert choice.reason in [record.getMessage() for record in caplog.records]


def test_each_gets_as_much_time_and_only_the_slices_that_it_takes():
    automatic, models = faked(ACCURACIES)
    settled(automatic)

    assert {model.step for model in models.values()} == {11}
    assert models["unet-fast"].fed == {(1, 1)}
    assert models["unet-fast-z3"].fed == {(1, 3)}
    assert models["unet-fast-t3"].fed == {(3, 1)}


def test_a_slow_network_gets_fewer_steps():
    automatic, models = faked(ACCURACIES, step_s={"unet-fast-t3": 0.02})
    settled(automatic)

    # The first step of each is not counted.
    assert {name: model.step for name, model in models.items()} == {
        "unet-fast": 11,
        "unet-fast-z3": 11,
        "unet-fast-t3": 6,
    }


def test_equals_go_to_the_simpler():
    automatic, _ = faked({"unet-fast": 0.522, "unet-fast-z3": 0.520, "unet-fast-t3": 0.521})
    choice = settled(automatic)

    assert choice.preset.name == "unet-fast"
    assert "0.522, is as good as the best, and it is simpler, after" in choice.reason


def test_equals_of_equal_size_go_to_the_first():
    choice = settled(faked({"unet-fast-t3": 0.521, "unet-fast-z3": 0.520, "unet-fast": 0.530})[0])
    assert choice.preset.name == "unet-fast-t3"


def test_inference_that_is_too_slow_gives_way_to_the_cheaper():
    choice = settled(faked(ACCURACIES, inference_s={"unet-fast-z3": 0.08, "unet-fast-t3": 0.06})[0])

    assert choice.preset.name == "unet-fast-t3"
    assert "of those that make 10 updates a second its held-out accuracy, 0.530, is best" in choice.reason


def test_reconstruction_of_more_slices_counts_too():
    choice = settled(faked(ACCURACIES, pace=replace(PACE, slice_s=0.04))[0])
    assert choice.preset.name == "unet-fast"


def test_when_none_is_in_time_the_fastest_is_chosen_and_says_so():
    choice = settled(faked(ACCURACIES, pace=replace(PACE, slice_s=0.25))[0])

    assert choice.preset.name == "unet-fast"
    assert "the fastest, with 4.0 updates a second, since none makes 10 (slices.updates_per_s)" in choice.reason


def test_with_pairs_of_one_frame_sequences_are_not_tried():
    automatic, models = faked(ACCURACIES)
    choice = settled(automatic, some_pairs(frames=1))

    assert choice.preset.name == "unet-fast-z3"
    assert models["unet-fast-t3"].step == 0
    assert "unet-fast-t3" not in choice.reason


def test_with_one_candidate_only_there_is_one_choice():
    automatic, models = faked(ACCURACIES)
    choice = settled(automatic, some_pairs(frames=1, depth=1))

    assert choice.preset.name == "unet-fast"
    assert choice.reason.startswith("auto chose unet-fast: there was no other to try; buffer")
    assert models["unet-fast"].step == 31


def test_pairs_that_no_candidate_takes_are_refused():
    automatic, _ = faked({"unet-fast-z3": 0.5})
    with pytest.raises(ValueError, match="unet-fast-z3 takes 1 frames of 3 slices, and these pairs have 1 of 1"):
        automatic.train_step(some_pairs(frames=1, depth=1))


def test_no_candidates_are_refused():
    with pytest.raises(ValueError, match="no presets to choose from"):
        Automatic((), seed=0, pace=lambda: PACE)


def test_held_out_figures_that_are_none_leave_the_simplest():
    choice = settled(faked(dict.fromkeys(CANDIDATES, math.nan))[0])

    assert choice.preset.name == "unet-fast"
    assert "since no held-out accuracy could be told" in choice.reason


def test_nothing_is_chosen_before_there_are_held_out_pairs():
    automatic, _ = faked(ACCURACIES)
    for _ in range(60):
        automatic.train_step(some_pairs())
    assert automatic.choice is None

    automatic.judge(some_pairs())
    assert automatic.choice is not None


def test_meanwhile_the_best_so_far_leads_and_steps_are_counted():
    automatic, models = faked(ACCURACIES)
    automatic.train_step(some_pairs())
    assert automatic.leader is models["unet-fast"]
    automatic.train_step(some_pairs())
    automatic.judge(some_pairs())

    assert automatic.leader is models["unet-fast-z3"]
    assert automatic.step == 2


def test_pairs_that_cannot_be_learnt_from_are_told_and_the_trial_goes_on():
    automatic, _ = faked(ACCURACIES)
    with pytest.raises(ValueError, match="not finite"):
        automatic.train_step(some_pairs(value=math.nan))

    assert settled(automatic).preset.name == "unet-fast-z3"


def test_the_chosen_model_goes_on_from_where_its_trial_ended():
    automatic, models = faked(ACCURACIES)
    choice = settled(automatic)
    before = choice.model.step
    automatic.train_step(some_pairs())

    assert choice.model.step == before + 1
    assert models["unet-fast"].step == 11
    automatic.judge(some_pairs())
    assert automatic.choice is choice


# ── buffer and region ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("pairs_per_s", "preset", "pairs"),
    [
        (10.0, "unet-fast", 320),
        (90.0, "unet-fast", 486),
        (200.0, "unet-fast-z3", 360),
        (1e4, "unet-fast-t3", MOST_PAIRS),
    ],
)
def test_the_buffer_holds_what_can_be_made_while_one_window_comes(pairs_per_s, preset, pairs):
    """Pairs of three slices take three times as long as those of one, in as many frames."""
    assert buffer_for(replace(PACE, pairs_per_s=pairs_per_s), of=some_pairs(), preset=preset_named(preset)) == pairs


def test_a_pace_that_is_not_known_gives_the_smallest_buffer():
    assert buffer_for(replace(PACE, window_s=math.nan), of=some_pairs(), preset=preset_named("unet-fast")) == 320


@pytest.mark.parametrize(
    ("worse_anywhere", "fraction", "words"),
    [
        (0.01, 0.25, "patches mixed (accuracy 0.520 in the slices on show, 0.530 anywhere)"),
        (0.03, 0.5, "half of the patches from anywhere (accuracy 0.520 in the slices on show, 0.550 anywhere)"),
        (-0.03, 0.0, "patches near the slices on show (accuracy 0.520 in the slices on show, 0.490 anywhere)"),
    ],
)
def test_patches_lie_where_the_network_is_worse(worse_anywhere, fraction, words):
    choice = settled(faked(ACCURACIES)[0], region=some_pairs(value=worse_anywhere))

    assert choice.whole_fraction == fraction
    assert choice.reason.endswith(words)


# ── pieces ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_middle_is_cut_out():
    values = np.arange(2 * 5 * 3 * 8 * 8, dtype=np.float32).reshape(2, 5, 3, 8, 8)
    pairs = cut(Pairs(u=values, v=-values), preset_named("unet-fast-t3"))

    assert np.array_equal(pairs.u, values[:, 1:4, 1:2])
    assert np.array_equal(pairs.v, -values[:, 1:4, 1:2])


def test_inference_is_timed_for_all_slices_on_show():
    model = make_model("unet-fast-z3")
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, 4, 1, 3, 16, 16)).astype(np.float32)
    model.train_step(Pairs(u=u, v=v))

    # Each look at this clock is 0.01 s later: so long takes the largest slice, of 64×64 points.
    seconds = inference_s_of(model, PACE, StepClock())
    assert seconds == pytest.approx(0.01 * (64 * 64 + 2 * 48 * 64) / (64 * 64))
    assert inference_s_of(model, replace(PACE, slice_shapes=()), StepClock()) == 0


@pytest.mark.parametrize("preset", ["unet-fast", "unet-fast-z3"])
def test_a_preset_is_timed_in_the_precision_that_its_slices_are_denoised_in(preset, monkeypatch, caplog) -> None:
    # Where the processor lacks it, PyTorch emulates it.
    monkeypatch.setattr("bluesky_jit.learn.denoiser.has_bfloat16", lambda: True)
    model, rng = make_model(preset), np.random.default_rng(0)
    truth = 2 + 0.3 * rng.normal(size=(32, 1, model.preset.depth, 20, 20)).cumsum(axis=-1)
    for _ in range(60):
        u, v = (truth + rng.normal(size=(2, *truth.shape))).astype(np.float32)
        model.train_step(Pairs(u=u, v=v))
    with caplog.at_level(logging.WARNING, logger="bluesky_jit.learn.denoiser"):
        inference_s_of(model, replace(PACE, slice_shapes=((256, 256),)), StepClock())
    assert [record.getMessage() for record in caplog.records if record.name == "bluesky_jit.learn.denoiser"] == []
