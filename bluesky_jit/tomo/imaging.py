"""Make images of a window's projections: slices on show, sequences of time frames, and the splits of patches."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from bluesky_jit.messages import AngleSource, AnglesUsed
from bluesky_jit.tomo.frames import Frames
from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.incremental import RunningImages, by_shape
from bluesky_jit.tomo.jobs import Kernel, Priority
from bluesky_jit.tomo.plan import Plan
from bluesky_jit.tomo.planner import Planner
from bluesky_jit.tomo.reconstructor import SliceSet
from bluesky_jit.tomo.sequence import Sequence
from bluesky_jit.tomo.window import Window

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a reader starts again when the window moved on under it; it never should with the default spare slots."""

T = TypeVar("T")


class Imaging:
    """Reconstruct grids from a window, for any threads; what is asked for again and again is kept up to date."""

    def __init__(self, window: Window, frames: Frames, *, n_splits: int, kernel: Kernel) -> None:
        self._window = window
        self._frames = frames
        self._n_splits = n_splits
        self._kernel = kernel
        self._planner = Planner(window, frames, n_splits=n_splits)
        self._running = tuple(RunningImages(kernel=kernel, n_slots=window.n_slots) for _ in range(frames.count))
        """Images of each frame, the oldest first; the slices on show are those of the last one."""

    @property
    def kept_voxels(self) -> int:
        """Count the voxels of the images that are kept up to date."""
        return sum(running.kept_voxels for running in self._running)

    def shown(self, geometry: Geometry) -> Plan:
        """Return how the projections of the window on show enter."""
        return self._planner.newest(geometry).newest

    def slices(
        self, geometry: Geometry, grids: tuple[Grid, ...], *, priority: Priority, source: AngleSource
    ) -> SliceSet | None:
        """Reconstruct grids, each float32 (nz, ny, nx), from the window on show."""

        def make(sequence: Sequence) -> list[np.ndarray] | None:
            return self._running[-1].images(sequence.newest, grids, self._window.intact, priority=priority)

        return self._slice_set(self._made(lambda: self._planner.newest(geometry), make), source)

    def sequences(
        self, geometry: Geometry, grids: tuple[Grid, ...], *, until: int | None, priority: Priority, source: AngleSource
    ) -> SliceSet | None:
        """Reconstruct grids, each float32 (n_frames, nz, ny, nx), from the windows of the frames."""

        def up_to_date(sequence: Sequence) -> list[np.ndarray] | None:
            frames = []
            for running, plan in zip(self._running, sequence.plans, strict=True):
                images = running.images(plan, grids, self._window.intact, priority=priority)
                if images is None:
                    return None
                frames.append(images)
            return [np.stack([images[n] for images in frames]) for n in range(len(grids))]

        def anew(sequence: Sequence) -> list[np.ndarray] | None:
            made: dict[Grid, np.ndarray] = {}
            for members in by_shape(grids):
                sums = self._kernel.run(sequence.jobs(members, splits=False, priority=priority))
                made |= dict(zip(members, sequence.frames_of(sums)[:, 0], strict=True))
            return [made[grid] for grid in grids] if self._window.intact(sequence.view) else None

        # What ends in the past is asked for now and then: sums that follow the newest projections stay as they are.
        make = up_to_date if until is None else anew
        return self._slice_set(self._made(lambda: self._planner.sequence(geometry, until), make), source)

    def pairs(self, geometry: Geometry, grids: tuple[Grid, ...], *, until: int | None) -> np.ndarray | None:
        """Reconstruct grids of one shape from each split: float32 (n_grids, n_splits, n_frames, nz, ny, nx)."""

        def make(sequence: Sequence) -> np.ndarray | None:
            if not grids:
                return np.zeros((0, self._n_splits, self._frames.count, 0, 0, 0), dtype=np.float32)
            sums = self._kernel.run(sequence.jobs(grids, splits=True, priority=Priority.PAIRS))
            return sequence.frames_of(sums) if self._window.intact(sequence.view) else None

        made = self._made(lambda: self._planner.sequence(geometry, until), make)
        return made[1] if made else None

    def _made(
        self, plan: Callable[[], Sequence | None], make: Callable[[Sequence], T | None]
    ) -> tuple[Sequence, T] | None:
        """Make something of the window, again if it was overwritten meanwhile (None); return the plan beside it."""
        for _ in range(ATTEMPTS):
            sequence = plan()
            if sequence is None or not sequence.usable:
                return None
            made = make(sequence)
            if made is not None:
                return sequence, made
        logger.warning(
            "projections arrive faster than slices can be made: %d of them came during one reconstruction, %d times; "
            "ask for smaller or fewer grids",
            self._window.spare,
            ATTEMPTS,
        )
        return None

    def _slice_set(self, made: tuple[Sequence, list[np.ndarray]] | None, source: AngleSource) -> SliceSet | None:
        if made is None:
            return None
        sequence, images = made
        # Of several frames the middle one is what is denoised: it is described, and the others are beside it.
        shown = sequence.plans[len(sequence.plans) // 2]
        view = shown.view
        return SliceSet(
            images=tuple(images),
            angles=AnglesUsed(
                count=len(view),
                first_id=int(view.unique_ids[0]),
                last_id=int(view.unique_ids[-1]),
                arc_rad=shown.arc.length_rad,
                source=source,
            ),
            complete=sequence.covers_all(self._window.n_projections),
            frame_time_s=float(view.frame_times_s.max()),
            clipped_fraction=float(view.clipped.mean()),
            pushed=int(view.serials.max()) + 1,
            axis_offset_mm=shown.geometry.axis_offset_mm,
        )
