"""Scores of whole slices over samples, of networks and of what needs no learning; and one slice of each experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bluesky_jit.bench.drawing import draw_pictures
from bluesky_jit.bench.experiments import HELD_OUT_START_S, Setup, recording, slices
from bluesky_jit.bench.figures import Figure
from bluesky_jit.bench.trials import Trial, trained
from bluesky_jit.bench.whole_slices import View, bm3d, denoised, total_variation, views


class SliceScores:
    """Score every contestant's slices of sample after sample; places: where slices lie (experiments.slices)."""

    def __init__(self, setup: Setup, *, folder: Path, places: Sequence[float]) -> None:
        self._setup = setup
        self._folder = folder
        self._places = places
        self._scores: dict[str, list[tuple[float, float]]] = {}
        self._rows: dict[str, dict[str, np.ndarray]] = {}
        self._captions: dict[str, str] = {}
        self._samples = 0

    def add(self, trials: Sequence[Trial], *, moments: Mapping[str, Sequence[float]]) -> None:
        """Score the trials of one sample at their end; moments: of some presets, at these seconds instead."""
        first = trials[0]
        later = recording(self._setup, first.experiment, first.seed, HELD_OUT_START_S, self._folder)
        shown = views(later, slices(self._setup, self._places))
        images = self._images(trials, shown, moments)
        for contestant, made in images.items():
            found = np.array([view.scores(image) for view, image in zip(shown, made, strict=True)])
            decibels, similarity = found.mean(axis=0).tolist()
            self._scores.setdefault(contestant, []).append((decibels, similarity))
        self._samples += 1
        row = f"experiment {first.experiment}"
        if row in self._rows:
            return
        self._rows[row] = {**{contestant: made[0] for contestant, made in images.items()}, "truth": shown[0].truth}
        for contestant, made in images.items():
            decibels, similarity = shown[0].scores(made[0])
            self._captions[f"{row}/{contestant}"] = f"{decibels:.1f} dB, {similarity:.3f}"

    def figures(self) -> list[Figure]:
        """Return the means over the samples so far."""
        note = f"mean of {self._samples} samples: horizontal and upright, {len(self._places)} of each"
        return [
            Figure(
                name=f"whole slices, {label}, {contestant}",
                value=float(np.mean([scores[place] for scores in found])),
                unit=unit,
                better="higher",
                note=note,
            )
            for place, (label, unit) in enumerate((("PSNR", "dB"), ("SSIM", "")))
            for contestant, found in self._scores.items()
        ]

    def draw(self, path: Path) -> None:
        """Draw the first horizontal slice of each experiment."""
        draw_pictures(self._rows, path, captions=self._captions)

    def _images(
        self, trials: Sequence[Trial], shown: Sequence[View], moments: Mapping[str, Sequence[float]]
    ) -> dict[str, list[np.ndarray]]:
        """Return every contestant's slices, one for each view."""
        images = {
            "raw (FDK)": [view.raw for view in shown],
            "total variation": [total_variation(view) for view in shown],
        }
        made = [bm3d(view) for view in shown]
        if found := [image for image in made if image is not None]:
            images["BM3D"] = found
        for trial in trials:
            wanted = moments.get(trial.preset, ())
            for moment in sorted({min(moment, trial.seconds) for moment in wanted} | {trial.seconds}):
                applier = trained(self._setup, trial, self._folder, moment)
                images[f"{trial.preset}, {moment:g} s"] = [denoised(applier, view) for view in shown]
        return images
