"""The paper's Fig. 11: slices before and after the jump of Fig. 10, as each strategy shows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bluesky_jit.bench import fig10
from bluesky_jit.bench.drawing import draw_pictures
from bluesky_jit.bench.figures import Figure, show, write, write_table
from bluesky_jit.bench.online import Replay
from bluesky_jit.bench.trials import CACHE
from bluesky_jit.bench.whole_slices import View, denoised, views
from bluesky_jit.learn.model import make_denoiser, make_model
from bluesky_jit.tomo.grid import Grid

HEIGHTS = {"before": 0.4, "after": -0.45}
"""Parts of the field's half height: among bubbles at the top, and through tablet and ground at the bottom."""
BUFFERED = "T3, 320"


def run(output: Path, *, quick: bool = False, cache: Path = CACHE, jump: float = fig10.JUMP_S) -> list[Figure]:
    """Draw what Fig. 10 has learnt, which is trained now where it is not in the cache; write fig11.json, .md, .png."""
    output.mkdir(parents=True, exist_ok=True)
    what = fig10.replay(cache, quick=quick, jump_s=jump)
    fig10.run(output, quick=quick, cache=cache, jump=jump)
    radius_mm, half_height_mm = what.setup.geometry.cylinder_mm
    points = what.setup.points
    figures: list[Figure] = []
    rows: dict[str, dict[str, np.ndarray]] = {}
    captions: dict[str, str] = {}
    for when, part in HEIGHTS.items():
        grid = Grid.slice_xy(z_mm=part * half_height_mm, voxel_mm=2 * radius_mm / points, shape=(points, points))
        # T3 sees a turn before and after the one that is on show.
        (view,) = views(what.recording(), {when: grid}, longest=3)
        images = {"input": view.raw, **{name: _shown(name, when, view, what) for name in _names()}}
        for name, image in images.items():
            decibels, similarity = view.scores(image)
            captions[f"{when}/{name}"] = f"{decibels:.1f} dB"
            figures.append(
                Figure(
                    name=f"{name}, {when} the jump",
                    value=decibels,
                    unit="dB",
                    better="higher",
                    note=f"PSNR; SSIM {similarity:.3f}",
                )
            )
        # A difference of zero is shown as the middle of the grey values.
        middle = (view.truth.max() + view.truth.min()) / 2
        difference = images[fig10.PRETRAINED] - images[BUFFERED] + middle
        rows[when] = {**images, f"pretrained − {BUFFERED}": difference, "truth": view.truth}
    draw_pictures(rows, output / "fig11.png", captions=captions)
    write(figures, output / "fig11.json", quick=quick)
    write_table(
        figures, output / "fig11.md", "Fig. 11: slices before and after the jump", "Against the noise-free truth."
    )
    show(figures, "Fig. 11")
    return figures


def _names() -> tuple[str, ...]:
    return (fig10.TUNED, fig10.PRETRAINED, BUFFERED, fig10.OURS)


def _shown(name: str, when: str, view: View, what: Replay) -> np.ndarray:
    """Return the slice as a strategy shows it at the end of that part; what is fixed has learnt before and no more."""
    fixed = {fig10.PRETRAINED: "t3", fig10.TUNED: "tv"}
    preset = fixed.get(name) or next(strategy.preset for strategy in fig10.STRATEGIES if strategy.name == name)
    model, applier = make_model(preset), make_denoiser(preset)
    model.load(what.weights(name, "before" if name in fixed else when))
    applier.load(model.snapshot())
    return denoised(applier, view)
