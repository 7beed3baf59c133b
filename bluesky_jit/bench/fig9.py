"""The paper's Fig. 9: what the best architecture of each class makes of a region of 90 by 120 points."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bluesky_jit.bench.drawing import draw_pictures
from bluesky_jit.bench.experiments import FULL, HELD_OUT_START_S, QUICK, SEEDS, Setup, recording
from bluesky_jit.bench.fig8 import planned
from bluesky_jit.bench.figures import Figure, show, write, write_table
from bluesky_jit.bench.trials import CACHE, trained
from bluesky_jit.bench.whole_slices import View, denoised, views
from bluesky_jit.learn.presets import preset_named
from bluesky_jit.tomo.grid import Grid
from sim_devices.phantom import ExperimentName

SHOWN = ("standard", "c32", "v150", "z7", "t7", "unet-fast", "unet-fast-z3")
"""The paper's choice of each class, and ours."""
SHAPE = (90, 120)
"""Rows and columns of the region, as in the paper."""


def run(output: Path, *, quick: bool = False, cache: Path = CACHE) -> list[Figure]:
    """Draw the networks of Fig. 8, trained now where they are not in the cache; write fig9.json, fig9.md, fig9.png."""
    output.mkdir(parents=True, exist_ok=True)
    setup = QUICK if quick else FULL
    trials = [trial for trial in planned(quick=quick) if quick or trial.preset in SHOWN]
    longest = max(preset_named(trial.preset).frames for trial in trials)
    figures: list[Figure] = []
    rows: dict[str, dict[str, np.ndarray]] = {}
    captions: dict[str, str] = {}
    names: dict[ExperimentName, None] = dict.fromkeys(trial.experiment for trial in trials)
    for name in names:
        later = recording(setup, name, SEEDS[0], HELD_OUT_START_S, cache)
        (view,) = views(later, {"region": region(setup, name)}, longest=longest)
        images = {"input": view.raw}
        for trial in trials:
            if trial.experiment == name:
                images[trial.preset] = denoised(trained(setup, trial, cache), view)
        row = f"experiment {name}, {'upright' if name == 'A' else 'horizontal'}"
        rows[row] = {**images, "truth": view.truth}
        figures += [_figure(view, row, which, image) for which, image in images.items()]
        captions |= {f"{row}/{which}": f"{view.scores(image)[0]:.1f} dB" for which, image in images.items()}
    draw_pictures(rows, output / "fig9.png", captions=captions)
    write(figures, output / "fig9.json", quick=quick)
    text = "One region each, from projections that nothing was trained on; against the truth averaged over the turn."
    write_table(figures, output / "fig9.md", "Fig. 9: regions of 90 by 120 points", text)
    show(figures, "Fig. 9")
    return figures


def region(setup: Setup, name: ExperimentName) -> Grid:
    """Return an upright region above the tablet for A, and a horizontal one in the middle of the volume for B."""
    voxel_mm = setup.geometry.voxel_mm
    rows, columns = SHAPE
    upright = name == "A"
    return Grid.centred(
        centre=(0.0, 0.0, 0.0),
        x_axis=(1, 0, 0),
        y_axis=(0, 0, 1) if upright else (0, 1, 0),
        voxel_mm=voxel_mm,
        shape=(1, min(rows, setup.geometry.n_v), min(columns, setup.points)),
    )


def _figure(view: View, row: str, which: str, image: np.ndarray) -> Figure:
    decibels, similarity = view.scores(image)
    return Figure(
        name=f"{which}, {row}", value=decibels, unit="dB", better="higher", note=f"PSNR; SSIM {similarity:.3f}"
    )
