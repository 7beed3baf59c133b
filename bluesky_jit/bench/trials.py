"""Trials: one preset trained on one sample for so long. Each is kept as a file, so that a long benchmark can go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from bluesky_jit.bench import curves
from bluesky_jit.bench.curves import Curve
from bluesky_jit.bench.experiments import HELD_OUT_START_S, TRAINING_START_S, Setup, recording
from bluesky_jit.bench.pair_source import PairSource
from bluesky_jit.learn.model import Applier, make_denoiser, make_model
from bluesky_jit.learn.presets import preset_named
from sim_devices.phantom import ExperimentName

CACHE = Path("jit-data/bench")
"""Where recordings and curves are kept unless another folder is given: some 100 MB for each sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Name a trial: a preset trained on a sample for some CPU seconds; measured: when, besides the usual moments."""

    experiment: ExperimentName
    seed: int
    preset: str
    seconds: float
    measured: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.experiment}-{self.seed}-{self.preset}-{self.seconds:g}s"

    def weights(self, setup: Setup, folder: Path, moment_s: float | None = None) -> Path:
        """Return the file of what was learnt by a measured moment, by default the end."""
        moment = self.seconds if moment_s is None else moment_s
        return _curves(setup, folder) / f"{self.name}-at-{moment:g}s.pt"


def curve(setup: Setup, trial: Trial, folder: Path) -> Curve:
    """Return the curve of a trial, from the folder or trained now."""

    def make() -> Curve:
        Console().print(f"training {trial.name}")
        preset = preset_named(trial.preset)
        training = recording(setup, trial.experiment, trial.seed, TRAINING_START_S, folder)
        later = recording(setup, trial.experiment, trial.seed, HELD_OUT_START_S, folder)
        model = make_model(preset, seed=trial.seed)
        _curves(setup, folder).mkdir(parents=True, exist_ok=True)

        def reached(moment_s: float) -> None:
            if moment_s in (*trial.measured, trial.seconds):
                model.save(trial.weights(setup, folder, moment_s))

        return curves.train(
            model,
            PairSource(training, preset, seed=trial.seed),
            {"held-out": PairSource(later, preset, seed=trial.seed + 1).held_out()},
            seconds=trial.seconds,
            seed=trial.seed,
            measured=trial.measured,
            reached=reached,
        )

    recipe = curves.recipe_of(make_model(trial.preset))
    return curves.kept(_curves(setup, folder) / f"{trial.name}.json", recipe, make)


def trained(setup: Setup, trial: Trial, folder: Path, moment_s: float | None = None) -> Applier:
    """Return what applies the weights that a trial had learnt by a measured moment, by default the end."""
    curve(setup, trial, folder)
    model = make_model(trial.preset)
    model.load(trial.weights(setup, folder, moment_s))
    applier = make_denoiser(trial.preset)
    applier.load(model.snapshot())
    return applier


def shortened(trials: Sequence[Trial], seconds: float) -> list[Trial]:
    """Return the trials at most so many seconds long, for a quick pass."""
    return [
        replace(
            trial,
            seconds=min(trial.seconds, seconds),
            measured=tuple(moment for moment in trial.measured if moment <= seconds),
        )
        for trial in trials
    ]


def _curves(setup: Setup, folder: Path) -> Path:
    return folder / f"curves-{setup.geometry.n_u}"
