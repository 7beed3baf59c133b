"""The paper's Fig. 8: how every architecture learns, on both experiments. A run that was stopped goes on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from bluesky_jit.bench.curves import Curve
from bluesky_jit.bench.drawing import Panel, draw_curves
from bluesky_jit.bench.experiments import EXPERIMENTS, FULL, QUICK, SEEDS
from bluesky_jit.bench.figures import Figure, show, write, write_table
from bluesky_jit.bench.trials import CACHE, Trial, curve, shortened

SECONDS = 120.0
"""CPU seconds of training of each; the paper took 30 minutes on a GPU."""
PRESETS = (
    "unet-fast",
    "unet-fast-z3",
    "unet-fast-t3",
    "fast",
    "unet-half",
    "standard-tuned",
    "standard",
    "c32",
    "v150",
    "z7",
    "t7",
    "c16",
    "v60",
    "z3",
    "t3",
    "v30",
    "v40",
    "v100",
    "z5",
    "t5",
)
"""Those of Fig. 9 first."""


def planned(*, quick: bool = False) -> list[Trial]:
    """Return the trials in the order in which they are run."""
    trials = [
        Trial(experiment=name, seed=SEEDS[0], preset=preset, seconds=SECONDS)
        for preset in PRESETS
        for name in EXPERIMENTS
    ]
    return shortened([t for t in trials if t.preset in ("unet-fast", "t3")], 0.1) if quick else trials


def run(output: Path, *, quick: bool = False, cache: Path = CACHE) -> list[Figure]:
    """Train what is not in the cache, and write fig8.json, fig8.md and fig8.png after every curve."""
    output.mkdir(parents=True, exist_ok=True)
    trials = planned(quick=quick)
    made: dict[Trial, Curve] = {}
    figures: list[Figure] = []
    for trial in trials:
        made[trial] = curve(QUICK if quick else FULL, trial, cache)
        figures = _written(made, output, n_planned=len(trials), quick=quick)
    show(figures, "Fig. 8: every architecture")
    return figures


def _written(made: dict[Trial, Curve], output: Path, *, n_planned: int, quick: bool) -> list[Figure]:
    figures = [
        Figure(
            name=f"{trial.preset}, experiment {trial.experiment}, after {trial.seconds:g} s",
            value=found.accuracy["held-out"][-1],
            unit="",
            better="lower",
            note=f"α of held-out pairs; {found.steps_per_s:.0f} steps/s",
        )
        for trial, found in made.items()
    ]
    about = {trial.name: asdict(found) for trial, found in made.items()}
    write(figures, output / "fig8.json", quick=quick, complete=len(made) == n_planned, curves=about)
    part = "" if len(made) == n_planned else f": {len(made)} of {n_planned} curves so far"
    write_table(
        figures,
        output / "fig8.md",
        "Fig. 8: every architecture" + part,
        "Held-out pairs have the size of the patches that are trained on; as many points as 3200 of 20×20.",
    )
    panels = [
        Panel(
            title=f"experiment {name}",
            lines={trial.preset: [found] for trial, found in made.items() if trial.experiment == name},
        )
        for name in EXPERIMENTS
        if any(trial.experiment == name for trial in made)
    ]
    draw_curves(panels, output / "fig8.png")
    return figures
