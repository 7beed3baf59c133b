"""Reconstruct by filtered backprojection while projections arrive (Feldkamp's algorithm for the cone)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from bluesky_jit.messages import AngleSource, AnglesUsed, ProjectionBlock
from bluesky_jit.tomo.axis.estimate import AxisEstimate
from bluesky_jit.tomo.axis.rows import estimate_from_window
from bluesky_jit.tomo.corrections.darkflat import DarkFlat
from bluesky_jit.tomo.corrections.transmission import SATURATION
from bluesky_jit.tomo.corrections.wanted import Corrections
from bluesky_jit.tomo.extended import margins_of, widened
from bluesky_jit.tomo.filling import Filling
from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.incremental import RunningImages
from bluesky_jit.tomo.jobs import Kernel, Priority
from bluesky_jit.tomo.kernels import choose
from bluesky_jit.tomo.limits import limits
from bluesky_jit.tomo.plan import Plan, make_plan
from bluesky_jit.tomo.prepare import Found, Preparation
from bluesky_jit.tomo.reconstructor import SliceSet
from bluesky_jit.tomo.redundancy import row_weight
from bluesky_jit.tomo.window import Mode, Window, WindowView

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a reader starts again when the window moved on under it; it never should with the default spare slots."""

T = TypeVar("T")


class FilteredBackprojection:
    """Keep a window of filtered projections and reconstruct any grids from it.

    One thread pushes and settles; any threads ask. The window spans the last `n_projections` acquisition numbers.
    Splits go by acquisition number modulo `n_splits`; each split by itself estimates the object, and the full image is
    their mean.

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
        kernel: str | Kernel = "auto",
        dark_flat: DarkFlat | None = None,
        saturation: int = SATURATION,
    ) -> None:
        """Make an empty window; dark_flat: another run's darks and flats, to begin with (its saturation holds then)."""
        if n_splits < 1 or n_projections < 2 * n_splits:
            raise ValueError(
                f"n_projections is {n_projections} and n_splits {n_splits}: each split needs at least two projections"
            )
        margins = margins_of(geometry)
        self._geometry = geometry
        self._window = Window(
            geometry.n_v,
            geometry.n_u,
            n_projections,
            mode=window,
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
        self._n_splits = n_splits
        self._kernel: Kernel = choose(kernel) if isinstance(kernel, str) else kernel
        self._shown = RunningImages(kernel=self._kernel, n_slots=self._window.n_slots)
        self._angle_source: AngleSource = "same stream"
        self._plan: Plan | None = None

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
        plan = self._plan_of(self._window.view)
        return plan.usable and plan.view.whole and plan.covers_all(self._window.n_projections)

    @property
    def kept_voxels(self) -> int:
        """Count the voxels of the slices that are kept up to date."""
        return self._shown.kept_voxels

    @property
    def revision(self) -> int:
        """Return a number that grows whenever slices would be made of other projections, or these filtered anew."""
        return self._window.view.revision

    def warnings(self) -> tuple[str, ...]:
        """Say in a sentence each what limits the present result: what it is, how much, and what to do."""
        plan = self._plan_of(self._window.view)
        return limits(
            self.dark_flat,
            self.found,
            plan.arc,
            len(plan.view),
            quantitative=plan.quantitative,
            clipped_fraction=self.clipped_fraction,
            axis_tilt_rad=self._geometry.axis_tilt_rad,
        )

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

        def make(plan: Plan) -> list[np.ndarray] | None:
            return self._shown.images(plan, grids, self._window.intact, priority=priority)

        made = self._on_intact_view(make)
        if made is None:
            return None
        plan, images = made
        view = plan.view
        return SliceSet(
            images=tuple(images),
            angles=AnglesUsed(
                count=len(view),
                first_id=int(view.unique_ids[0]),
                last_id=int(view.unique_ids[-1]),
                arc_rad=plan.arc.length_rad,
                source=self._angle_source,
            ),
            complete=plan.covers_all(self._window.n_projections),
            frame_time_s=float(view.frame_times_s.max()),
            clipped_fraction=float(view.clipped.mean()),
            pushed=view.pushed,
            axis_offset_mm=plan.geometry.axis_offset_mm,
        )

    def pairs(self, grids: tuple[Grid, ...]) -> np.ndarray | None:
        """Reconstruct grids, all of one shape, once from each split: float32 (n_grids, n_splits, nz, ny, nx).

        Returns None when slices() would.
        """

        def make(plan: Plan) -> np.ndarray | None:
            if not grids:
                return np.zeros((0, self._n_splits, 0, 0, 0), dtype=np.float32)
            images = self._kernel.run(plan.jobs(grids, splits=True, priority=Priority.PAIRS))
            return images if self._window.intact(plan.view) else None

        made = self._on_intact_view(make)
        return made[1] if made else None

    def _on_intact_view(self, make: Callable[[Plan], T | None]) -> tuple[Plan, T] | None:
        """Make something of the window, again if it was overwritten meanwhile (None); return the plan beside it."""
        for _ in range(ATTEMPTS):
            plan = self._plan_of(self._window.view)
            if not plan.usable:
                return None
            made = make(plan)
            if made is not None:
                return plan, made
        logger.warning(
            "projections arrive faster than slices can be made: %d of them came during one reconstruction, %d times; "
            "ask for smaller or fewer grids",
            self._window.spare,
            ATTEMPTS,
        )
        return None

    def _plan_of(self, view: WindowView) -> Plan:
        """Return how the projections of a view enter; kept, since many patches are made from one view."""
        plan, geometry = self._plan, self._geometry
        if view.slot_geometry is not None and geometry.extended_field:
            # Which lines count once has gone into the slots: images move with them, and not before.
            geometry = view.slot_geometry
        if plan is None or plan.view is not view or plan.geometry is not geometry:
            self._plan = plan = make_plan(view, geometry, self._n_splits)
        return plan
