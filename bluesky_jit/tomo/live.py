"""Reconstruct by filtered backprojection while projections arrive (Feldkamp's algorithm for the cone)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bluesky_jit.messages import AngleSource, ProjectionBlock
from bluesky_jit.tomo.axis.estimate import AxisEstimate
from bluesky_jit.tomo.axis.rows import estimate_from_window
from bluesky_jit.tomo.binning import BinnedFrames, binned_frames
from bluesky_jit.tomo.corrections.darkflat import DarkFlat
from bluesky_jit.tomo.corrections.flat_estimate import estimate_flat, evenly
from bluesky_jit.tomo.corrections.transmission import SATURATION
from bluesky_jit.tomo.corrections.wanted import Corrections
from bluesky_jit.tomo.extended import margins_of, widened
from bluesky_jit.tomo.filling import Filling
from bluesky_jit.tomo.frames import Frames
from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.imaging import Imaging
from bluesky_jit.tomo.jobs import Kernel, Priority
from bluesky_jit.tomo.kernels import choose
from bluesky_jit.tomo.limits import limits, time_frames_limit
from bluesky_jit.tomo.prepare import Found, Preparation
from bluesky_jit.tomo.reconstructor import SliceSet
from bluesky_jit.tomo.redundancy import row_weight
from bluesky_jit.tomo.window import Mode, Window


class FilteredBackprojection:
    """Keep a window of filtered projections and reconstruct any grids from it.

    One thread pushes and settles; any threads ask. The window spans the last `n_projections` acquisition numbers.
    Splits go by acquisition number modulo `n_splits`; each split by itself estimates the object, and the full image is
    their mean.

    frames: a sequence has so many time frames, whose windows end `frame_spacing` acquisition numbers apart; history: of
    so many before the window, projections are kept for windows that end in the past (those of a sequence by itself).
    window: "sliding", or "whole-turns" for windows that share no projection; planned_arc_rad: the arc that the run is
    to cover, if known, so that part of a turn can be weighted as it comes; memory_gb: most that the window may take.
    """

    def __init__(
        self,
        geometry: Geometry,
        *,
        n_projections: int,
        window: Mode = "sliding",
        planned_arc_rad: float | None = None,
        memory_gb: float | None = None,
        filter: str = "ram-lak",
        filter_cutoff: float = 1.0,
        corrections: Corrections | None = None,
        n_splits: int = 2,
        frames: int = 1,
        frame_spacing: int = 60,
        history: int = 0,
        kernel: str | Kernel = "auto",
        dark_flat: DarkFlat | None = None,
        saturation: int = SATURATION,
    ) -> None:
        """Make an empty window; dark_flat: another run's darks and flats, to begin with (its saturation holds then)."""
        if n_splits < 1 or n_projections < 2 * n_splits:
            raise ValueError(
                f"n_projections is {n_projections} and n_splits {n_splits}: each split needs at least two projections"
            )
        asked = Frames(
            n_projections=n_projections,
            n_splits=n_splits,
            count=frames,
            spacing=frame_spacing,
            history=history,
            mode=window,
        )
        margins = margins_of(geometry)
        self._geometry = geometry
        self._window = Window(
            geometry.n_v,
            geometry.n_u,
            n_projections,
            mode=window,
            past=asked.past,
            slot_geometry=widened(geometry, margins),
            memory_gb=memory_gb,
        )
        self._preparation = Preparation(
            geometry,
            margins=margins,
            filter=filter,
            filter_cutoff=filter_cutoff,
            corrections=corrections,
            dark_flat=dark_flat,
            saturation=saturation,
        )
        self._filling = Filling(geometry, self._window, self._preparation, planned_arc_rad=planned_arc_rad)
        self._kernel: Kernel = choose(kernel) if isinstance(kernel, str) else kernel
        self._imaging = Imaging(self._window, asked, n_splits=n_splits, kernel=self._kernel)
        self._n_frames = frames
        self._angle_source: AngleSource = "same stream"

    @property
    def geometry(self) -> Geometry:
        return self._geometry

    @property
    def ready(self) -> bool:
        """Say whether flats have come, without which projections are only kept."""
        return self.dark_flat.ready

    @property
    def dark_flat(self) -> DarkFlat:
        """Return the darks and flats, which another run may borrow."""
        return self._preparation.dark_flat

    @property
    def found(self) -> Found:
        """Say what corrections have found in the frames so far."""
        return self._preparation.found

    @property
    def n_projections(self) -> int:
        """Return how many acquisition numbers the window spans."""
        return self._window.n_projections

    @property
    def newest(self) -> int | None:
        """Return the newest acquisition number, before the first one None."""
        return self._window.kept.end - 1 if len(self._window.kept) else None

    @property
    def window_count(self) -> int:
        """Count the projections in the window."""
        return len(self._window.view)

    @property
    def clipped_fraction(self) -> float:
        """Return the fraction of the window's pixels that were too dark or too bright to measure."""
        view = self._window.view
        return float(view.clipped.mean()) if len(view) else 0.0

    @property
    def complete(self) -> bool:
        """Say whether the window covers the whole arc, with no wide gap unless the window is full.

        With "whole-turns", a window must have become whole first.
        """
        plan = self._imaging.shown(self._geometry)
        return plan.usable and plan.view.whole and plan.covers_all(self._window.n_projections)

    @property
    def kept_voxels(self) -> int:
        """Count the voxels of the slices that are kept up to date."""
        return self._imaging.kept_voxels

    @property
    def revision(self) -> int:
        """Return a number that grows whenever slices would be made of other projections, or these filtered anew."""
        return self._window.view.revision

    def warnings(self) -> tuple[str, ...]:
        """Say in a sentence each what limits the present result: what it is, how much, and what to do."""
        plan = self._imaging.shown(self._geometry)
        texts = limits(
            self.dark_flat,
            self.found,
            plan.arc,
            len(plan.view),
            quantitative=plan.quantitative,
            clipped_fraction=self.clipped_fraction,
            axis_tilt_rad=self._geometry.axis_tilt_rad,
        )
        frames = time_frames_limit(plan.arc, self._n_frames, short_scan=plan.view.short_scan is not None)
        return (*texts, frames) if frames else texts

    def set_axis_offset(self, offset_mm: float) -> None:
        """Move the rotation axis to lab x = offset_mm, for all images made from now on.

        Weights that depend on it follow when the thread that pushes settles, where they change by more than a trifle;
        in an extended field the images follow then too. Raises ValueError where there could be none.
        """
        geometry = replace(self._geometry, axis_offset_mm=float(offset_mm))
        # Raises where the axis is not seen at every angle.
        row_weight(geometry, 0.0, None)
        self._geometry = geometry

    def estimate_axis(self) -> AxisEstimate:
        """Estimate where the axis is, from the raw counts of the window and not from where it is set."""
        return estimate_from_window(self._window, self.dark_flat, self._geometry, self._kernel)

    def binned(self, points: int) -> BinnedFrames | None:
        """Return the window's frames as a detector of about so many columns would have seen them, from raw counts."""
        return binned_frames(self._window, self.dark_flat, self._geometry, points)

    def push(self, block: ProjectionBlock) -> None:
        """Take frames in; after darks and flats that come late, `settle` or the next projection brings them to bear.

        Raises ValueError when frames do not fit the detector, a projection has no angle, or flats show no beam; such
        frames are left out, and the next ones are taken.
        """
        expected = (self._geometry.n_v, self._geometry.n_u)
        if block.counts.shape[1:] != expected:
            raise ValueError(
                f"{block.kind} frames are {block.counts.shape[1:]} pixels and the geometry's detector {expected} "
                "(rows, columns): correct n_v and n_u of the geometry, or the detector's region of interest"
            )
        if block.counts.dtype != np.uint16:
            raise ValueError(
                f"{block.kind} frames are of type {block.counts.dtype}: give raw counts as uint16, which "
                "bluesky_jit.intake.frames.as_counts makes of any numbers that fit"
            )
        if block.kind == "projection":
            self._filling.take_projections(block, self._geometry)
            self._angle_source = block.angle_source
        else:
            self._filling.take_reference(block)

    def borrow(self, dark_flat: DarkFlat, *, unasked: bool = False) -> None:
        """Do with another run's darks and last flats where this one has none; unasked: nobody has named that run.

        It belongs to the thread that pushes. Raises ValueError when they do not fit what this run has.
        """
        self._filling.borrow(dark_flat, unasked=unasked)

    def estimate_flats(self) -> None:
        """Do with an estimate from the projections that have come until flats come.

        It belongs to the thread that pushes. Raises ValueError when there are no projections, or they show no beam.
        """
        view = self._window.kept
        if not len(view):
            raise ValueError("no projection could be used, so that flats cannot be estimated from them: take flats")
        used = replace(view, slots=view.slots[evenly(len(view))])
        self._filling.take_estimated_flat(
            estimate_flat(lambda rows: self._window.counts_of(used, rows), self._geometry.n_v)
        )

    def settle(self, *, drained: bool = False) -> bool:
        """Filter the window's projections again where they would now come out otherwise; return whether they did.

        drained: no more projections will come. It belongs to the thread that pushes.
        """
        return self._filling.settle(self._geometry, drained=drained)

    def slices(self, grids: tuple[Grid, ...], *, priority: Priority = Priority.SHOWN) -> SliceSet | None:
        """Reconstruct grids, of any shapes, from all projections of the window as they were last filtered.

        Grids that are asked for again cost what has changed since. Over a part of the arc that is too short the images
        are not quantitative: `complete` says so, and `warnings` by how much. Returns None when there is nothing to make
        them of: no flats yet, or a split with fewer than two projections.
        """
        return self._imaging.slices(self._geometry, grids, priority=priority, source=self._angle_source)

    def sequences(
        self, grids: tuple[Grid, ...], *, until: int | None = None, priority: Priority = Priority.SHOWN
    ) -> SliceSet | None:
        """Reconstruct grids in each time frame: as slices(), with images (n_frames, nz, ny, nx), the oldest first.

        until: the acquisition number at which the last frame's window ends, the newest one by default. Returns None
        when slices() would, and when not all that the frames need is there yet, or any more.
        """
        return self._imaging.sequences(self._geometry, grids, until=until, priority=priority, source=self._angle_source)

    def pairs(self, grids: tuple[Grid, ...], *, until: int | None = None) -> np.ndarray | None:
        """Reconstruct grids, all of one shape, once from each split in each time frame, the oldest first.

        Returns float32 (n_grids, n_splits, n_frames, nz, ny, nx), or None when sequences() would.
        """
        return self._imaging.pairs(self._geometry, grids, until=until)
