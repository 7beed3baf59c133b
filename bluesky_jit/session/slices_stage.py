"""The slices loop: reconstruct and denoise what is on show."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from bluesky_jit.learn.denoiser import Denoiser
from bluesky_jit.learn.segmentation import threshold_labels
from bluesky_jit.learn.weights import Weights
from bluesky_jit.messages import ImageKind, Update
from bluesky_jit.session.run import LiveRun
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Priority
from bluesky_jit.tomo.reconstructor import SliceSet

if TYPE_CHECKING:
    from bluesky_jit.session.wiring import Session

PREVIEW_EVERY_S = 1.0
IDLE_S = 0.05
SETTLING_S = 3.0
"""How long a run's last slices wait for its axis: several times what an estimate takes."""


class Slices:
    """Reconstruct and denoise the slices on show whenever there are new projections, or a slice was moved."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._denoiser = Denoiser(session.settings.learn.preset) if session.settings.learn.enabled else None
        self._preview_due = 0.0
        self._weights: Weights | None = None
        self._shown: tuple[object, ...] = ()
        """What the images on show were made of."""

    def loop(self) -> None:
        seen, next_at = -1, 0.0
        while not self._session.stopping.is_set():
            version = self._session.wait_for_frames(seen, IDLE_S)
            run = self._session.run
            if run is None:
                seen = version
                continue
            last = run.drained and not run.closed
            if version == seen and not last and not self._weights_are_new(run):
                continue
            if not last and time.monotonic() < next_at:
                self._session.stopping.wait(max(0.0, next_at - time.monotonic()))
            next_at = time.monotonic() + 1 / self._session.settings.slices.updates_per_s
            seen = version
            if last:
                # The axis may still move, and the projections' weights after it.
                self._session.wait_until_settled(run, SETTLING_S)
            try:
                self.refresh(run, with_preview=last)
            finally:
                # A run has its end even when its last slices cannot be made.
                if last:
                    self._session.close_run(run)

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
        raw = reconstruction.slices(tuple(shown.values()))
        if raw is None:
            return
        self._shown = made_of
        self._session.recon_time_ms = (time.perf_counter() - began) * 1e3
        denoised = self._denoised(run, raw.images)
        self._session.update_number += 1
        for index, (name, grid) in enumerate(shown.items()):
            self._put(run, raw, name, "raw", grid, raw.images[index])
            if denoised is not None:
                self._put(run, raw, name, "denoised", grid, denoised[index])
        if denoised is not None:
            grid = shown["XY"]
            self._put(run, raw, "XY", "residual", grid, raw.images[0] - denoised[0])
            self._put(run, raw, "XY", "analysis", grid, threshold_labels(denoised[0]).astype(np.float32))
        if with_preview or time.monotonic() >= self._preview_due:
            self._preview_due = time.monotonic() + PREVIEW_EVERY_S
            grid = run.preview_grid()
            preview = reconstruction.slices((grid,), priority=Priority.PREVIEW)
            if preview is not None:
                self._put(run, preview, "preview", "preview", grid, preview.images[0])

    def _weights_of(self, run: LiveRun) -> Weights | None:
        """Return what to denoise with, or None before the network has beaten the raw slice on held-out data."""
        learner = run.learner
        if learner is None or self._denoiser is None or self._session.learning_is_lost or not learner.ready:
            return None
        return learner.weights

    def _denoised(self, run: LiveRun, images: tuple[np.ndarray, ...]) -> list[np.ndarray] | None:
        """Return the denoised slices, or None before the network has beaten the raw slice on held-out data."""
        weights, denoiser = self._weights_of(run), self._denoiser
        if weights is None or denoiser is None:
            return None
        # By identity: another run's weights may be of the same step.
        if weights is not self._weights:
            denoiser.load(weights)
            self._weights = weights
        return [denoiser.apply(image[None])[None] for image in images]

    def _put(self, run: LiveRun, made: SliceSet, name: str, kind: ImageKind, grid: Grid, image: np.ndarray) -> None:
        learner = run.learner
        processed = kind in ("denoised", "residual", "analysis")
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
            preset=self._session.settings.learn.preset if processed else "",
            weights_step=self._weights.step if processed and self._weights else 0,
            axis_offset_mm=made.axis_offset_mm,
            accuracy=learner.accuracy if learner else float("nan"),
            ready=learner.ready if learner else False,
        )
        self._session.published(update)
