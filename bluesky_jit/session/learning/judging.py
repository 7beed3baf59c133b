"""What the trainer stage makes of the pairs that it does not train on: figures, and whether slices may be shown."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bluesky_jit.learn.automatic import cut
from bluesky_jit.learn.model import Applier, Model, make_denoiser
from bluesky_jit.learn.presets import Preset
from bluesky_jit.learn.quality.accuracy import Accuracy, accuracy_of_slice, beats_raw, mean_of, middle, suspicious
from bluesky_jit.learn.quality.drift import Drift
from bluesky_jit.learn.quality.jump import JumpDetector
from bluesky_jit.learn.quality.readiness import Readiness
from bluesky_jit.learn.quality.residual import ResidualFigure, residual_figure
from bluesky_jit.learn.weights import Weights
from bluesky_jit.messages import Pairs
from bluesky_jit.session.learning.pair_making import Unseen, WholeSlice
from bluesky_jit.tomo.grid import Grid

logger = logging.getLogger(__name__)

SMOOTHING = 0.05
"""Share of a new value in the running figures (accuracy, loss) that people read."""


class FailedJudgement(ValueError):
    """Say that figures could not be made; the older ones stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Say what of a whole slice cannot be trusted, and which weights it was denoised with."""

    whole: WholeSlice
    figure: ResidualFigure
    preset: str
    weights_step: int


class Judging:
    """Keep the figures of what is learned. One thread judges; others read."""

    def __init__(self, *, splits: int, memory_gb: float) -> None:
        """Begin; splits: of the angles; memory_gb: of a network that is applied to a slice."""
        self._memory_gb = memory_gb
        self._limit = beats_raw(splits)
        self.readiness = Readiness(limit=self._limit, suspicious=suspicious(splits))
        self.jumps = 0
        self._jump = JumpDetector()
        self._drift = Drift()
        self._denoiser: Applier | None = None
        self._shown: dict[str, Grid] = {}
        self._forget()

    @property
    def promising(self) -> bool:
        """Say whether the figures that come often speak for the network: so may others, which cost more."""
        return self.held_out < self._limit

    @property
    def passed_unseen(self) -> bool:
        """Say whether the network beat the raw slice on what it had never seen."""
        return max(self.unseen, self.whole_slice) < self._limit

    def start_afresh(self, why: str) -> None:
        """Forget all figures: they were of other weights."""
        self._forget()
        self._jump.reset()
        self._drift.reset()
        self.readiness.reset(why)

    def incoming(self, model: Model, pairs: Pairs) -> bool:
        """Judge pairs that have just come; return whether the data changed abruptly, after which slices are raw."""
        value = model.accuracy(cut(pairs, model.preset)).value
        if not math.isfinite(value):
            return False
        self.accuracy = smoothed(self.accuracy, value)
        self._drift.update(value)
        self.drift = self._drift.figure().per_minute
        if not self._jump.update(value):
            return False
        logger.info("the data changed abruptly (accuracy of new pairs %.3f): the buffer is emptied", value)
        self.jumps += 1
        self._drift.reset()
        self.held_out = self.drift = self.unseen = self.whole_slice = math.nan
        self.residual = None
        self.readiness.reset("the data changed abruptly: learning it")
        return True

    def guard(self, model: Model, pairs: Pairs) -> None:
        """Judge pairs of the region that is never trained on."""
        figure = model.accuracy(cut(pairs, model.preset))
        self.held_out = figure.value
        self.readiness.update(figure)

    def guard_has_moved(self) -> None:
        """Forget what was judged: what is measured from now on had been trained on."""
        self.held_out = math.nan
        self.readiness.reset("the region to judge by has moved with the sample")

    def unseen_window(self, model: Model, weights: Weights, unseen: Unseen) -> None:
        """Judge pairs and whole slices of projections none of which was trained on."""
        patches = mean_of([model.accuracy(cut(batch, model.preset)).value for batch in unseen.batches])
        figures = {whole.name: self._accuracy_of(weights, whole) for whole in unseen.slices}
        self.readiness.unseen(patches)
        for name, figure in figures.items():
            self.readiness.whole(name, figure)
        self.unseen = patches.value
        self.whole_slice = max((figure.value for figure in figures.values()), default=math.nan)

    def whole(self, weights: Weights, whole: WholeSlice) -> Doubt:
        """Judge what the denoiser takes away from a slice on show."""
        [slab] = whole.shown.images
        u, v = (middle(side)[0] for side in (whole.halves.u, whole.halves.v))
        raw, denoised = middle(slab[None])[0], self._denoised(weights, slab)
        figure = residual_figure(raw, denoised, u, v, mask=whole.inside)
        self.readiness.residual(whole.name, figure)
        # A slice that is too small to be judged does not hide what is known of the others.
        if figure.judged or self.residual is None:
            self.residual = figure
        return Doubt(whole=whole, figure=figure, preset=weights.preset, weights_step=weights.step)

    def show(self, shown: Mapping[str, Grid]) -> None:
        """Forget what was found out about slices that are no longer where they were."""
        for name, grid in self._shown.items():
            if shown.get(name) != grid:
                self.readiness.forget(name)
        self._shown = dict(shown)

    def _accuracy_of(self, weights: Weights, whole: WholeSlice) -> Accuracy:
        """Return the accuracy of a whole slice as slices are denoised, where every projection sees it."""
        u, v = (middle(side)[0] for side in (whole.pairs.u, whole.pairs.v))
        return accuracy_of_slice(self._denoised(weights, whole.pairs.u[0]), u, v, mask=whole.inside)

    def _denoised(self, weights: Weights, slab: np.ndarray) -> np.ndarray:
        if self._denoiser is None or self._denoiser.preset.name != weights.preset:
            self._denoiser = make_denoiser(weights.preset, memory_gb=self._memory_gb)
        self._denoiser.load(weights)
        return self._denoiser.apply(cut_slab(slab, self._denoiser.preset))

    def _forget(self) -> None:
        self.accuracy = math.nan
        self.unseen = math.nan
        self.whole_slice = math.nan
        self.held_out = math.nan
        self.drift = math.nan
        self.residual: ResidualFigure | None = None


def cut_slab(slab: np.ndarray, preset: Preset) -> np.ndarray:
    """Return the middle frames and slices of a slab (nt, nz, ny, nx), as many as a preset takes."""
    return cut(Pairs(u=slab[None], v=slab[None]), preset).u[0]


def smoothed(old: float, new: float) -> float:
    """Return a running figure after a new value."""
    return new if math.isnan(old) else old + SMOOTHING * (new - old)
