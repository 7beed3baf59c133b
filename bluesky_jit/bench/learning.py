"""How soon a network is good: seconds in which ours pass what the paper's Standard reaches in 60 and 300 seconds.

And how good it is then: whole slices against the truth, beside what needs no learning; and how fast it trains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bluesky_jit.bench.curves import Curve
from bluesky_jit.bench.drawing import Panel, draw_curves
from bluesky_jit.bench.experiments import EXPERIMENTS, FULL, QUICK, SEEDS
from bluesky_jit.bench.figures import Figure, show, write, write_table
from bluesky_jit.bench.slice_scores import SliceScores
from bluesky_jit.bench.throughput import SLICE_POINTS, measure
from bluesky_jit.bench.trials import CACHE, Trial, curve, shortened
from sim_devices.phantom import ExperimentName

REFERENCE = "standard"
DEFAULT = "unet-fast"
OURS = (DEFAULT, "fast", "unet-half", "standard-tuned", "unet-fast-z3")
OURS_S = 15.0
"""How long each of ours is trained: many times as long as it should take to pass the marks."""
HEIGHTS = (-0.35, 0.2)
"""Where whole slices lie, as parts of the field's half height and radius: through the tablet, and above it."""
EARLY_S = 1.0
"""The default's slices are scored after this long too, and when it is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Say after how many seconds of Standard its accuracy is to be passed, and how soon: floor and goal, in s."""

    standard_s: float
    floor_s: float
    goal_s: float


MARKS = (Mark(standard_s=60, floor_s=1.0, goal_s=0.25), Mark(standard_s=300, floor_s=2.0, goal_s=0.5))
QUICK_S = 0.3
QUICK_MARKS = (Mark(standard_s=0.1, floor_s=1.0, goal_s=0.25),)
RATES = {"samples": (15_000.0, 20_000.0), "slices": (40.0, 73.0)}
"""Floor and goal of the default on one core: samples trained on in a second, and slices of 1024² denoised."""

Curves = Mapping[tuple[str, int, str], Curve]
"""By experiment, seed and preset."""


def run(output: Path, *, quick: bool = False, cache: Path = CACHE) -> list[Figure]:
    """Measure, and write learning.json, learning-figures.md, learning.png and learning-slices.png after each sample."""
    output.mkdir(parents=True, exist_ok=True)
    setup = QUICK if quick else FULL
    trials = planned(quick=quick)
    marks = QUICK_MARKS if quick else MARKS
    rates = _rates(quick=quick)
    curves: dict[tuple[str, int, str], Curve] = {}
    scores = SliceScores(setup, folder=cache, places=HEIGHTS[-1:] if quick else HEIGHTS)
    figures: list[Figure] = []
    samples = list(dict.fromkeys((trial.experiment, trial.seed) for trial in trials))
    for number, (name, seed) in enumerate(samples, start=1):
        mine = [trial for trial in trials if (trial.experiment, trial.seed) == (name, seed)]
        curves |= {(name, seed, trial.preset): curve(setup, trial, cache) for trial in mine}
        scores.add(mine, moments={DEFAULT: (EARLY_S, OURS_S)})
        figures = [*_crossings(curves, marks), *_costs(curves), *scores.figures(), *rates]
        scores.draw(output / "learning-slices.png")
        draw_curves(_panels(curves, marks), output / "learning.png")
        done = f"{number} of {len(samples)} samples"
        write(figures, output / "learning.json", quick=quick, done=done, curves=_as_json(curves))
        title = f"Learning: how soon a network is good, {done}" + (", in small" if quick else "")
        write_table(figures, output / "learning-figures.md", title, "What it means: [Learning, measured](learning.md).")
    show(figures, "Learning: how soon a network is good")
    return figures


def planned(*, quick: bool = False) -> list[Trial]:
    """Return the trials, sample by sample."""
    samples: list[tuple[ExperimentName, int]] = [(name, seed) for seed in SEEDS for name in EXPERIMENTS]
    standard = tuple(mark.standard_s for mark in MARKS)
    trials = [
        trial
        for name, seed in samples
        for trial in (
            Trial(experiment=name, seed=seed, preset=REFERENCE, seconds=max(standard), measured=standard),
            *(Trial(experiment=name, seed=seed, preset=preset, seconds=OURS_S, measured=(EARLY_S,)) for preset in OURS),
        )
    ]
    if not quick:
        return trials
    few = [t for t in trials if (t.experiment, t.seed) == samples[0] and t.preset in (REFERENCE, DEFAULT)]
    return shortened(few, QUICK_S)


def _crossings(curves: Curves, marks: tuple[Mark, ...]) -> list[Figure]:
    """Return when each of ours passes Standard's marks: the median over samples of each experiment."""
    figures = []
    samples = sorted({key[:2] for key in curves})
    presets = list(dict.fromkeys(key[2] for key in curves if key[2] != REFERENCE))
    for mark in marks:
        for preset in presets:
            for name in sorted({experiment for experiment, _ in samples}):
                seeds = [seed for experiment, seed in samples if experiment == name]
                levels = [curves[name, seed, REFERENCE].at(mark.standard_s) for seed in seeds]
                found = [curves[name, seed, preset].passes(level) for seed, level in zip(seeds, levels, strict=True)]
                ours = preset == DEFAULT
                each = ", ".join(
                    f"{seed}: {_told(*passed)} (α {level:.4f})"
                    for seed, passed, level in zip(seeds, found, levels, strict=True)
                )
                median_s = float(np.median([seconds for seconds, _ in found]))
                figures.append(
                    Figure(
                        name=f"{preset} passes Standard at {mark.standard_s:g} s, experiment {name}",
                        # JSON has no infinity: a mark that is never passed is as late as training went on.
                        value=min(median_s, curves[name, seeds[0], preset].seconds[-1]),
                        unit="s",
                        better="lower",
                        floor=mark.floor_s if ours else None,
                        goal=mark.goal_s if ours else None,
                        peer=mark.standard_s,
                        note=f"median of samples {each}",
                    )
                )
    return figures


def _told(seconds: float, steps: float) -> str:
    return f"{seconds:.2f} s, {steps:.0f} steps" if math.isfinite(seconds) else "never"


def _costs(curves: Curves) -> list[Figure]:
    """Return what making pairs took beside training, which is on no clock."""
    figures = []
    for preset in dict.fromkeys(key[2] for key in curves):
        found = [made for key, made in curves.items() if key[2] == preset]
        figures.append(
            Figure(
                name=f"{preset}: making pairs, beside a second of training",
                value=float(np.median([made.pair_s / made.seconds[-1] for made in found])),
                unit="s",
                better="lower",
                note=f"one core; {np.median([made.steps_per_s for made in found]):.0f} steps/s",
            )
        )
    return figures


def _rates(*, quick: bool) -> list[Figure]:
    """Return how fast presets train and denoise in one thread, in one run; `bench table1` has two threads as well."""
    points = 128 if quick else SLICE_POINTS
    presets = (REFERENCE, DEFAULT) if quick else (REFERENCE, *OURS)
    figures = []
    for found in measure(presets, threads=(1,), rounds=1 if quick else 9, points=points):
        for kind, value, name, peer in (
            ("samples", found.samples_per_s, "training", 4190.0),
            ("slices", found.slices_per_s, f"slices of {points}²", 73.0),
        ):
            floor, goal = RATES[kind] if found.preset == DEFAULT else (None, None)
            figures.append(
                Figure(
                    name=f"{found.preset}: {name}, 1 thread",
                    value=value,
                    unit="samples/s" if kind == "samples" else "Hz",
                    better="higher",
                    floor=floor,
                    goal=goal,
                    peer=peer if found.preset == REFERENCE else None,
                    note="in CPU seconds"
                    + ("; peer: the paper's, on an RTX 2080 Ti" if found.preset == REFERENCE else ""),
                )
            )
    return figures


def _panels(curves: Curves, marks: tuple[Mark, ...]) -> list[Panel]:
    panels = []
    for name in sorted({key[0] for key in curves}):
        lines: dict[str, list[Curve]] = {}
        for (experiment, _, preset), made in curves.items():
            if experiment == name:
                lines.setdefault(preset, []).append(made)
        levels = {
            f"Standard at {mark.standard_s:g} s": float(
                np.median([made.at(mark.standard_s) for made in lines[REFERENCE]])
            )
            for mark in marks
        }
        panels.append(Panel(title=f"experiment {name}", lines=lines, levels=levels))
    return panels


def _as_json(curves: Curves) -> dict[str, dict]:
    """Return the curves as JSON keeps them."""
    return {"-".join(map(str, key)): asdict(made) for key, made in curves.items()}
