"""The paper's Fig. 7: what a network learnt on one set of data is worth on another, for six changes.

The error ε (equation 5) is the accuracy on pairs of E of the network that learnt D, less that of one that learnt E.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rich.console import Console

from bluesky_jit.bench import curves
from bluesky_jit.bench.curves import Curve
from bluesky_jit.bench.drawing import DOTS_PER_INCH, limit_accuracy, pyplot
from bluesky_jit.bench.experiments import FRAME_S, FULL, QUICK, SEEDS, TRAINING_START_S, Recording, Setup, recording
from bluesky_jit.bench.figures import Figure, show, write, write_table
from bluesky_jit.bench.pair_source import PairSource
from bluesky_jit.bench.trials import CACHE
from bluesky_jit.learn.model import make_model
from bluesky_jit.learn.presets import preset_named
from bluesky_jit.learn.region import Region
from bluesky_jit.tomo.grid import Grid
from sim_devices.phantom import ExperimentName

TRAINING_TURNS, HELD_OUT_TURNS = 7, 2
"""Turns of each recording: 12.6 s to learn from (the paper: 12 s), and later ones that accuracy is measured on."""
LATER_S = 240.0
"""How much later "much later" is: the tablet is all but gone then. (The paper: 25 minutes, of a slower experiment.)"""
BUDGETS_S = {"unet-fast": 6.0, "standard": 45.0}
"""CPU seconds of training of every network."""
HEIGHTS = tuple(k / 5 for k in range(-4, 5))
"""Where slices lie, as parts of the jar's half height or radius, that patches of one orientation are parallel to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Name a set of data: from which experiment and when, and where and how its patches lie."""

    name: str
    experiment: ExperimentName = "A"
    delay_s: float = 0.0
    part: str = "whole"
    zoom: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Change from D to E, named as in the paper; expected: what its text says of the error."""

    letter: str
    name: str
    before: Data
    after: Data
    expected: str


WHOLE = Data(name="whole")
SCENARIOS = (
    Scenario(
        letter="a",
        name="reposition",
        before=Data(name="top", part="top"),
        after=Data(name="bottom", part="bottom"),
        expected="significant",
    ),
    Scenario(
        letter="b",
        name="tilt",
        before=Data(name="horizontal", part="horizontal"),
        after=Data(name="upright", part="upright"),
        expected="significant",
    ),
    Scenario(
        letter="c", name="zoom", before=WHOLE, after=Data(name="zoomed", zoom=2.0), expected="largest of (a) to (c)"
    ),
    Scenario(
        letter="d",
        name="next 12 s",
        before=WHOLE,
        after=Data(name="next", delay_s=TRAINING_TURNS * FULL.angles_per_turn * FRAME_S),
        expected="none: “generalizes well”",
    ),
    Scenario(
        letter="e",
        name="much later",
        before=WHOLE,
        after=Data(name="later", delay_s=LATER_S),
        expected="“a decreased accuracy”",
    ),
    Scenario(
        letter="f",
        name="other experiment",
        before=WHOLE,
        after=Data(name="other", experiment="B"),
        expected="“generalization … is poor”",
    ),
)


def run(output: Path, *, quick: bool = False, cache: Path = CACHE) -> list[Figure]:
    """Train on every set of data; write fig7.json, fig7.md and a plot for each preset as soon as it is done."""
    output.mkdir(parents=True, exist_ok=True)
    # What is measured on must not share a projection with what is learnt from.
    setup = replace(QUICK, turns=3) if quick else replace(FULL, turns=TRAINING_TURNS + HELD_OUT_TURNS)
    figures: list[Figure] = []
    about: dict[str, dict] = {}
    for preset, budget in ({"unet-fast": 0.1} if quick else BUDGETS_S).items():
        study = _Study(setup=setup, preset=preset, seconds=budget, folder=cache)
        made = {name: study.curve(name) for name in study.sets()}
        figures += [_figure(scenario, preset, made) for scenario in SCENARIOS]
        about[preset] = {name: asdict(found) for name, found in made.items()}
        _draw(made, output / f"fig7-{preset}.png", f"{preset}, {setup.held_out} held-out pairs")
        write(figures, output / "fig7.json", quick=quick, curves=about)
        title = f"Fig. 7: the error ε after a change, {', '.join(about)}" + (", in small" if quick else "")
        text = "ε = α on pairs of E of the network that learnt D, less that of a network that learnt E (equation 5)."
        write_table(figures, output / "fig7.md", title, text)
    show(figures, "Fig. 7: the error ε after a change")
    return figures


@dataclass(frozen=True, slots=True, kw_only=True)
class _Study:
    """Train one preset on every set of data; held-out pairs are made once."""

    setup: Setup
    preset: str
    seconds: float
    folder: Path
    _held_out: dict = field(default_factory=dict)

    def sets(self) -> dict[str, Data]:
        """Return every set of data once."""
        return {data.name: data for scenario in SCENARIOS for data in (scenario.before, scenario.after)}

    def curve(self, name: str) -> Curve:
        """Train on a set, and measure on it and on all that it is compared with."""
        wanted = {name} | {each.after.name for each in SCENARIOS if each.before.name == name}

        def make() -> Curve:
            Console().print(f"training {self.preset} on {name}")
            end = self.setup.turns - (1 if self.setup.turns <= TRAINING_TURNS else HELD_OUT_TURNS)
            return curves.train(
                make_model(self.preset, seed=SEEDS[0]),
                self._source(name, (0, end)),
                {each: self._pairs(each, end) for each in sorted(wanted)},
                seconds=self.seconds,
                seed=SEEDS[0],
            )

        path = self.folder / f"fig7-{self.setup.geometry.n_u}" / f"{self.preset}-{name}-{self.seconds:g}s.json"
        return curves.kept(path, curves.recipe_of(make_model(self.preset)), make)

    def _pairs(self, name: str, end: int):
        if name not in self._held_out:
            self._held_out[name] = self._source(name, (end, self.setup.turns), seed=SEEDS[0] + 1).held_out()
        return self._held_out[name]

    def _source(self, name: str, turns: tuple[int, int], *, seed: int = SEEDS[0]) -> PairSource:
        data = self.sets()[name]
        start_s = TRAINING_START_S + data.delay_s
        recorded = recording(self.setup, data.experiment, SEEDS[0], start_s, self.folder)
        return PairSource(
            recorded,
            preset_named(self.preset),
            seed=seed,
            region=_region(recorded, data.part),
            shown=_shown(recorded, data.part),
            voxel_mm=self.setup.geometry.voxel_mm / data.zoom,
            turns=turns,
        )


def _region(recorded: Recording, part: str) -> Region:
    """Return the jar, or its upper or lower half."""
    jar = recorded.jar
    sign = {"top": 0.5, "bottom": -0.5}.get(part)
    if sign is None:
        return jar
    return replace(jar, half_height_mm=jar.half_height_mm / 2, centre_mm=(0.0, 0.0, sign * jar.half_height_mm))


def _shown(recorded: Recording, part: str) -> tuple[Grid, ...]:
    """Return slices of one orientation throughout the jar, or none."""
    make: Callable[[float], Grid]
    jar, setup = recorded.jar, recorded.setup
    voxel_mm, shape = setup.geometry.voxel_mm, (setup.points, setup.points)
    if part == "horizontal":
        make = lambda at: Grid.slice_xy(z_mm=at * jar.half_height_mm, voxel_mm=voxel_mm, shape=shape)  # noqa: E731
    elif part == "upright":
        make = lambda at: Grid.slice_xz(y_mm=at * jar.radius_mm, voxel_mm=voxel_mm, shape=shape)  # noqa: E731
    else:
        return ()
    return tuple(make(at) for at in HEIGHTS)


def _figure(scenario: Scenario, preset: str, made: dict[str, Curve]) -> Figure:
    before, after = scenario.before.name, scenario.after.name
    own, baseline = made[before].accuracy[before][-1], made[after].accuracy[after][-1]
    achieved = made[before].accuracy[after][-1]
    return Figure(
        name=f"({scenario.letter}) {scenario.name}: ε of {preset}",
        value=achieved - baseline,
        unit="",
        better="lower",
        note=f"α on D {own:.4f}; on E {achieved:.4f}, of who learnt E {baseline:.4f}; the paper: {scenario.expected}",
    )


def _draw(made: dict[str, Curve], path: Path, title: str) -> None:
    plt = pyplot()
    figure, axes = plt.subplots(2, 3, figsize=(12, 7), sharex=True, sharey=True, layout="constrained")
    for scenario, axis in zip(SCENARIOS, axes.flat, strict=True):
        before, after = scenario.before.name, scenario.after.name
        learnt, baseline = made[before], made[after]
        axis.plot(learnt.seconds, learnt.accuracy[before], "C0-", label="learnt D, measured on D")
        axis.plot(baseline.seconds, baseline.accuracy[after], "C0--", label="learnt E, measured on E")
        axis.plot(learnt.seconds, learnt.accuracy[after], "r.", label="learnt D, measured on E")
        axis.set(title=f"({scenario.letter}) {scenario.name}", xscale="log")
        axis.grid(alpha=0.3)
    limit_accuracy(axes[0, 0], [a for curve in made.values() for values in curve.accuracy.values() for a in values])
    for axis in axes[1]:
        axis.set(xlabel="training / CPU seconds")
    for axis in axes[:, 0]:
        axis.set(ylabel="accuracy α")
    axes[0, 0].legend(fontsize=8)
    figure.suptitle(title)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)
