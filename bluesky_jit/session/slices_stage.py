"""The slices loop: reconstruct and denoise what is on show."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bluesky_jit.learn.model import Applier, make_denoiser
from bluesky_jit.learn.presets import Preset, preset_named
from bluesky_jit.learn.quality.accuracy import middle
from bluesky_jit.learn.segmentation import threshold_labels
from bluesky_jit.learn.segmenter import SliceSegmenter
from bluesky_jit.learn.weights import Weights
from bluesky_jit.messages import ImageKind, Problem, Update
from bluesky_jit.session.learning.judging import cut_slab
from bluesky_jit.session.run import LiveRun
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Priority
from bluesky_jit.tomo.reconstructor import Reconstructor, SliceSet

if TYPE_CHECKING:
    from bluesky_jit.session.wiring import Session

logger = logging.getLogger(__name__)

PREVIEW_EVERY_S = 1.0
IDLE_S = 0.05
SETTLING_S = 3.0
"""How long a run's last slices wait for its axis: several times what an estimate takes."""

DENOISED: tuple[ImageKind, ...] = ("denoised", "residual", "analysis")
"""Images that are made with the denoiser's weights."""


class Slices:
    """Reconstruct and denoise the slices on show whenever there are new projections, or a slice was moved."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._denoiser: Applier | None = None
        self._segmenter: SliceSegmenter | None = None
        self._segmentation: Weights | None = None
        self._preview_due = 0.0
        self._weights: Weights | None = None
        self._told_of = ""
        """The run that it was told of that its slices cannot be denoised."""
        self._shown: tuple[object, ...] = ()
        """What the images on show were made of."""

    def loop(self) -> None:
        seen, next_at = -1, 0.0
        while not self._session.stopping.is_set():
            version = self._session.wait_for_frames(seen, IDLE_S)
            for run in self._session.runs.values():
                self._look_after(run)
            run = self._session.run
            if run is None or (version == seen and not self._weights_are_new(run)):
                seen = version
                continue
            if time.monotonic() < next_at:
                # What has ended is not to wait.
                self._session.stopping.wait(min(IDLE_S, max(0.0, next_at - time.monotonic())))
                continue
            shedding = self._session.shedding
            next_at = time.monotonic() + shedding.slowdown / self._session.settings.slices.updates_per_s
            # All that would have been made in the time until the next one, but for that one.
            shedding.updates += round(shedding.slowdown) - 1
            seen = version
            self.refresh(run, with_preview=False)

    def _look_after(self, run: LiveRun) -> None:
        """Make an open run's last slices when it is over, and its record's, one a turn, if it is not on show."""
        if run.drained:
            if not run.closed and (self._session.is_settled(run) or time.monotonic() - run.drained_s > SETTLING_S):
                try:
                    self.refresh(run, with_preview=True)
                finally:
                    # A run has its end even when its last slices cannot be made.
                    self._session.close_run(run)
        elif run is not self._session.run and run.turns > run.recorded_turns:
            run.recorded_turns = run.turns
            self.refresh(run, with_preview=False)

    def _weights_are_new(self, run: LiveRun) -> bool:
        weights = self._weights_of(run)
        return not run.closed and weights is not None and weights is not self._weights

    def refresh(self, run: LiveRun, *, with_preview: bool) -> None:
        """Make one update of every image."""
        reconstruction = run.reconstruction
        if run.geometry is None or reconstruction is None or not (reconstruction.complete or run.drained):
            return
        shown = run.shown_grids(self._session.positions_mm)
        made_of = (run.uid, reconstruction.revision, reconstruction.geometry, tuple(shown.values()))
        if made_of == self._shown and not (with_preview or self._weights_are_new(run)):
            # Projections have come that belong to the next whole window.
            return
        began = time.perf_counter()
        weights = self._weights_of(run)
        made = self._made(reconstruction, tuple(shown.values()), preset_named(weights.preset) if weights else None)
        if made is None:
            return
        self._shown = made_of
        run.slices_s = time.perf_counter() - began
        self._session.recon_time_ms = run.slices_s * 1e3
        self._watch_pace(run, made)
        raw = [middle(slab[None])[0][None] for slab in made.images]
        denoised = self._denoised_or_told(run, weights, made.images)
        self._session.update_number += 1
        for index, (name, grid) in enumerate(shown.items()):
            self._put(run, made, name, "raw", grid, raw[index])
            if denoised is not None:
                self._put(run, made, name, "denoised", grid, denoised[index])
        if denoised is not None:
            grid = shown["XY"]
            self._put(run, made, "XY", "residual", grid, raw[0] - denoised[0])
            self._put(run, made, "XY", "analysis", grid, threshold_labels(denoised[0]).astype(np.float32))
            segmented = self._segmented_or_told(run, made.images[0])
            if segmented is not None:
                self._put(run, made, "XY", "segmentation", grid, segmented)
        if with_preview or time.monotonic() >= self._preview_due:
            self._preview_due = time.monotonic() + PREVIEW_EVERY_S
            grid = run.preview_grid()
            preview = reconstruction.slices((grid,), priority=Priority.PREVIEW)
            if preview is not None:
                self._put(run, preview, "preview", "preview", grid, preview.images[0])

    def _weights_of(self, run: LiveRun) -> Weights | None:
        """Return what to denoise with, or None before the network has beaten the raw slice on held-out data."""
        learner = run.learner
        if learner is None or self._session.learning_is_lost or not learner.ready:
            return None
        return learner.weights

    def _made(self, reconstruction: Reconstructor, shown: tuple[Grid, ...], preset: Preset | None) -> SliceSet | None:
        """Reconstruct the slices on show, as slabs (nt, nz, ny, nx) of what a preset looks at: all of one moment.

        Of several time frames the middle one is denoised, and so it is the one that is shown; without a preset, and
        while the frames are not all there, the newest is.
        """
        depth = preset.depth if preset else 1
        slabs = tuple(grid.slab(depth) for grid in shown) if depth > 1 else shown
        made = reconstruction.sequences(slabs) if preset and preset.frames > 1 else None
        if made is not None:
            return made
        made = reconstruction.slices(slabs)
        return made and replace(made, images=tuple(image[None] for image in made.images))

    def _denoised_or_told(
        self, run: LiveRun, weights: Weights | None, slabs: tuple[np.ndarray, ...]
    ) -> list[np.ndarray] | None:
        """Return the denoised slices as `_denoised` does, or None, and say so, where that fails: raw ones go on."""
        try:
            return self._denoised(weights, slabs)
        except Exception as error:
            logger.debug("a network could not be applied to the slices", exc_info=True)
            self._tell(run, error)
            return None

    def _segmented_or_told(self, run: LiveRun, slab: np.ndarray) -> np.ndarray | None:
        """Return the segmentation as `_segmented` does, or None, and say so, where that fails."""
        try:
            return self._segmented(run, slab)
        except Exception as error:
            logger.debug("a network could not be applied to the slices", exc_info=True)
            self._tell(run, error)
            return None

    def _tell(self, run: LiveRun, error: Exception) -> None:
        """Report, once in a run, that a network cannot be applied to slices."""
        if self._told_of == run.uid:
            return
        self._told_of = run.uid
        text = f"slices cannot be denoised, and are raw: {error}; choose another learn.preset or slices.size"
        self._session.report(Problem(text=text, severity="MINOR", run_uid=run.uid))

    def _denoised(self, weights: Weights | None, slabs: tuple[np.ndarray, ...]) -> list[np.ndarray] | None:
        """Return the denoised slices (1, ny, nx), or None without weights or without all that they look at."""
        if weights is None:
            return None
        if self._denoiser is None or self._denoiser.preset.name != weights.preset:
            self._denoiser = make_denoiser(weights.preset, memory_gb=self._session.settings.learn.inference_memory_gb)
        preset = self._denoiser.preset
        if any(slab.shape[0] < preset.frames for slab in slabs):
            return None
        # By identity: another run's weights may be of the same step.
        if weights is not self._weights:
            self._denoiser.load(weights)
            self._weights = weights
        return [self._denoiser.apply(cut_slab(slab, preset))[None] for slab in slabs]

    def _segmented(self, run: LiveRun, slab: np.ndarray) -> np.ndarray | None:
        """Return the probability of the denser class (1, ny, nx), or None while that is not better than a threshold."""
        weights = run.learner.segmentation if run.learner else None
        if weights is None:
            return None
        self._segmenter = self._segmenter or SliceSegmenter()
        if weights is not self._segmentation:
            self._segmenter.load(weights)
            self._segmentation = weights
        return self._segmenter.apply(slab)[None]

    def _watch_pace(self, run: LiveRun, made: SliceSet) -> None:
        """Measure how fast projections come."""
        if run.shown_first is None:
            run.shown_first = (made.pushed, made.frame_time_s)
        pushed, frame_time_s = run.shown_first
        if made.pushed > pushed:
            run.interval_s = (made.frame_time_s - frame_time_s) / (made.pushed - pushed)

    def _put(self, run: LiveRun, made: SliceSet, name: str, kind: ImageKind, grid: Grid, image: np.ndarray) -> None:
        learner = run.learner
        used = self._segmentation if kind == "segmentation" else self._weights if kind in DENOISED else None
        update = Update(
            run_uid=run.uid,
            number=self._session.update_number,
            slice_name=name,
            kind=kind,
            grid=grid,
            image=np.ascontiguousarray(image, dtype=np.float32),
            angles=made.angles,
            turn=made.pushed // run.angles_per_turn,
            flats=run.flats,
            frame_time_s=made.frame_time_s,
            made_time_s=time.time(),
            preset=used.preset if used else "",
            weights_step=used.step if used else 0,
            axis_offset_mm=made.axis_offset_mm,
            accuracy=learner.accuracy if learner else float("nan"),
            ready=learner.ready if learner else False,
        )
        self._session.published(update)
