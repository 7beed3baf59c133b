"""Curves of accuracy against seconds: what the clock counts, when a mark is passed, and what is kept."""

import math
from pathlib import Path

import numpy as np
import pytest

from bluesky_jit.bench import curves
from bluesky_jit.bench.curves import Curve
from bluesky_jit.learn.model import make_model
from bluesky_jit.messages import Pairs

CURVE = Curve(
    recipe="fast, 3 weights",
    seconds=(0.1, 0.2, 0.4),
    steps=(10, 20, 40),
    accuracy={"held-out": (0.9, 0.6, 0.55)},
    pair_s=0.05,
)


class Noise:
    """Make pairs of noise around nothing, each batch in a tenth of a second of the clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self._rng = np.random.default_rng(0)

    def clock(self) -> float:
        """Tell the time, and let a millisecond pass, as whoever works does."""
        self.now += 1e-3
        return self.now

    def batch(self) -> Pairs:
        self.now += 0.1
        u, v = self._rng.standard_normal((2, 32, 1, 1, 8, 8), dtype=np.float32)
        return Pairs(u=u, v=v)


def test_a_mark_is_passed_when_accuracy_is_first_as_good() -> None:
    assert CURVE.passes(0.6) == (0.2, 20)
    assert CURVE.passes(0.58) == (0.4, 40)
    assert CURVE.passes(0.5) == (math.inf, math.inf)


def test_accuracy_at_a_moment_is_the_first_one_measured_from_then_on() -> None:
    assert CURVE.at(0.15) == 0.6
    assert CURVE.at(0.2) == 0.6
    assert CURVE.at(9.0) == 0.55


def test_accuracy_is_measured_ever_more_seldom_and_when_it_is_asked_for() -> None:
    moments = curves.moments(10.0, also=(1.0, 20.0))
    assert moments[0] == curves.FIRST_S
    assert moments[-1] == 10.0
    assert 1.0 in moments
    assert 20.0 not in moments
    assert max(np.divide(moments[1:], moments[:-1])) <= curves.RATIO + 1e-9


def test_the_clock_counts_training_and_not_the_making_of_pairs() -> None:
    source = Noise()
    held_out = source.batch()
    found = curves.train(make_model("fast"), source, {"held-out": held_out}, seconds=0.06, seed=0, clock=source.clock)
    # A step takes one tick of this clock, whereas each batch takes a hundred.
    assert found.seconds[-1] == pytest.approx(0.06, abs=2e-3)
    assert found.steps[-1] in (60, 61)
    assert found.pair_s > 15 * 0.1
    assert len(found.accuracy["held-out"]) == len(found.seconds)


def test_a_kept_curve_is_read_again_unless_the_recipe_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "curve.json"
    made = []

    def make() -> Curve:
        made.append(1)
        return CURVE

    assert curves.kept(path, CURVE.recipe, make) == CURVE
    assert curves.kept(path, CURVE.recipe, make) == CURVE
    assert len(made) == 1
    curves.kept(path, "fast, 4 weights", make)
    assert len(made) == 2


def test_a_recipe_tells_presets_apart() -> None:
    recipes = {curves.recipe_of(make_model(name)) for name in ("fast", "unet-fast", "standard", "standard-tuned")}
    assert len(recipes) == 4
