"""Reconstruct by filtered backprojection while projections arrive (Feldkamp's algorithm for the cone)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bluesky_jit.messages import AngleSource, AnglesUsed, ProjectionBlock
from bluesky_jit.tomo.correct import SATURATION
from bluesky_jit.tomo.darkflat import DarkFlat
from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Jobs, Kernel
from bluesky_jit.tomo.kernels import choose
from bluesky_jit.tomo.limits import limits
from bluesky_jit.tomo.prepare import FrameInfo, Preparation
from bluesky_jit.tomo.reconstructor import SliceSet
from bluesky_jit.tomo.weights import SEAM_RAD, Arc, covered_arc, period_of, split_weights
from bluesky_jit.tomo.window import Window, WindowView

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a reader starts again when the window moved on under it; it never should with the default spare slots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """Hold how each projection of a view enters; with these scales, each split by itself estimates the object."""

    view: WindowView
    geometry: Geometry
    arc: Arc
    matrices: np.ndarray
    splits: np.ndarray
    scales: np.ndarray
    usable: bool


class FilteredBackprojection:
    """Keep a window of filtered projections and reconstruct any grids from it.

    One thread pushes and settles; any threads ask. The window spans the last `n_projections` acquisition numbers.
    Splits go by acquisition number modulo `n_splits`; each split by itself estimates the object, and the full image is
    their mean.
    """

    def __init__(
        self,
        geometry: Geometry,
        *,
        n_projections: int,
        filter: str = "ram-lak",
        n_splits: int = 2,
        kernel: Literal["auto", "numba", "reference"] | Kernel = "auto",
        dark_flat: DarkFlat | None = None,
        saturation: int = SATURATION,
    ) -> None:
        """Make an empty window; dark_flat: another run's darks and flats, to begin with (its saturation holds then)."""
        if n_splits < 1 or n_projections < 2 * n_splits:
            raise ValueError(
                f"n_projections is {n_projections} and n_splits {n_splits}: each split needs at least two projections"
            )
        self._geometry = geometry
        self._preparation = Preparation(geometry, filter=filter, dark_flat=dark_flat, saturation=saturation)
        self._n_splits = n_splits
        self._kernel: Kernel = choose(kernel) if isinstance(kernel, str) else kernel
        self._window = Window(geometry.n_v, geometry.n_u, n_projections)
        self._stale = False
        """Darks or flats have come that the window's projections were not filtered with."""
        self._angle_source: AngleSource = "same stream"
        self._plan: _Plan | None = None

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
        """Say whether the window covers the whole arc, with no wide gap unless the window is full."""
        plan = self._plan_of(self._window.view)
        return plan.usable and self._covers_all(plan)

    def warnings(self) -> tuple[str, ...]:
        """Say in a sentence each what limits the present result: what it is, how much, and what to do."""
        view = self._window.view
        return limits(self.dark_flat, self._plan_of(view).arc, len(view))

    def set_axis_offset(self, offset_mm: float) -> None:
        """Move the rotation axis to lab x = offset_mm, for all images made from now on.

        Projections filtered before keep their fan weight, which differs by less than offset · field of view / D².
        """
        geometry = replace(self._geometry, axis_offset_mm=float(offset_mm))
        self._preparation.set_geometry(geometry)
        self._geometry = geometry

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
        if block.kind == "projection":
            self._push_projections(block)
            return
        if not len(block):
            return
        # Not filtered at once: late flats come one by one, and the window takes a second to filter.
        try:
            if block.kind == "dark":
                self.dark_flat.add_darks(block.counts)
            else:
                view = self._window.view
                come = int(view.acquisition[-1]) + 1 if len(view) else 0
                after = come if block.after is None else block.after
                self.dark_flat.add_flats(block.counts, times_s=block.frame_times_s, after=after)
            self._stale = True
        finally:
            if not self.ready and self._window.view.filtered:
                # These darks have shown that the flats had no beam: what was filtered with them is worth nothing.
                self._window.unfilter()

    def settle(self) -> bool:
        """Filter the window's projections again if darks or flats have come since, and return whether they had.

        It belongs to the thread that pushes.
        """
        due = self._stale and self.ready and len(self._window.view) > 0
        if due:
            self._window.refilter(self._preparation.filtered)
        self._stale = False
        return due

    def slices(self, grids: tuple[Grid, ...]) -> SliceSet | None:
        """Reconstruct grids, of any shapes, from all projections of the window as they were last filtered.

        Over a part of the arc the images are not quantitative: `complete` says so, and `warnings` by how much. Returns
        None when there is nothing to make them of: no flats yet, or a split with fewer than two projections.
        """
        images: list[np.ndarray | None] = [None] * len(grids)

        def run(plan: _Plan) -> None:
            for shape in dict.fromkeys(grid.shape for grid in grids):
                members = [n for n, grid in enumerate(grids) if grid.shape == shape]
                result = self._backprojected(plan, tuple(grids[n] for n in members), splits=False)
                for n, image in zip(members, result[:, 0], strict=True):
                    images[n] = image

        plan = self._on_intact_view(run)
        if plan is None:
            return None
        view = plan.view
        return SliceSet(
            images=tuple(image for image in images if image is not None),
            angles=AnglesUsed(
                count=len(view),
                first_id=int(view.unique_ids[0]),
                last_id=int(view.unique_ids[-1]),
                arc_rad=plan.arc.length_rad,
                source=self._angle_source,
            ),
            complete=self._covers_all(plan),
            frame_time_s=float(view.frame_times_s.max()),
            clipped_fraction=float(view.clipped.mean()),
            pushed=view.pushed,
        )

    def pairs(self, grids: tuple[Grid, ...]) -> np.ndarray | None:
        """Reconstruct grids, all of one shape, once from each split: float32 (n_grids, n_splits, nz, ny, nx).

        Returns None when slices() would.
        """
        results: list[np.ndarray] = []

        def run(plan: _Plan) -> None:
            results.append(self._backprojected(plan, grids, splits=True))

        return results[-1] if self._on_intact_view(run) is not None else None

    def _push_projections(self, block: ProjectionBlock) -> None:
        if not np.isfinite(block.angles_rad).all():
            missing = int(block.acquisition[~np.isfinite(block.angles_rad)][0])
            raise ValueError(
                f"projection {missing} has no angle: give the angle's data key (settings: intake.angle_key)"
            )
        self._angle_source = block.angle_source
        if len(block):
            self.settle()
        for n in range(len(block)):
            info = FrameInfo(
                angle_rad=float(block.angles_rad[n]),
                acquisition=int(block.acquisition[n]),
                time_s=float(block.frame_times_s[n]),
            )
            filtered, clipped = self._preparation.filtered(block.counts[n], info) if self.ready else (None, 0.0)
            self._window.push(block.counts[n], filtered, info, unique_id=int(block.unique_ids[n]), clipped=clipped)

    def _covers_all(self, plan: _Plan) -> bool:
        acquisition = plan.view.acquisition
        full = acquisition[-1] - acquisition[0] + 1 >= self._window.n_projections
        return bool(plan.arc.closed and (full or plan.arc.largest_gap_rad <= SEAM_RAD))

    def _on_intact_view(self, run: Callable[[_Plan], None]) -> _Plan | None:
        """Run a computation on the window, again if the window was overwritten meanwhile; return the plan it used."""
        for _ in range(ATTEMPTS):
            plan = self._plan_of(self._window.view)
            if not plan.usable:
                return None
            run(plan)
            if self._window.intact(plan.view):
                return plan
        logger.warning(
            "projections arrive faster than slices can be made: %d of them came during one reconstruction, %d times; "
            "ask for smaller or fewer grids",
            self._window.spare,
            ATTEMPTS,
        )
        return None

    def _plan_of(self, view: WindowView) -> _Plan:
        """Return the matrices and scales for a view; kept, since many patches are made from one view."""
        plan, geometry = self._plan, self._geometry
        if plan is not None and plan.view is view and plan.geometry is geometry:
            return plan
        period = period_of(geometry.kind)
        arc = covered_arc(view.angles_rad, period)
        splits = view.acquisition % self._n_splits
        # A full turn of a cone sees every line twice (Kak and Slaney, eq. 3.176), half a turn of a parallel beam once.
        redundancy = 0.5 if geometry.kind == "cone" else 1.0
        plan = _Plan(
            view=view,
            geometry=geometry,
            arc=arc,
            matrices=geometry.matrices(view.angles_rad),
            splits=splits,
            scales=redundancy * split_weights(view.angles_rad, splits, self._n_splits, arc),
            usable=view.filtered and int(np.bincount(splits, minlength=self._n_splits).min()) >= 2,
        )
        self._plan = plan
        return plan

    def _backprojected(self, plan: _Plan, grids: tuple[Grid, ...], *, splits: bool) -> np.ndarray:
        """Run the kernel: one image for each split, or their mean as the only one."""
        if not grids:
            return np.zeros((0, self._n_splits if splits else 1, 0, 0, 0), dtype=np.float32)
        jobs = Jobs(
            projections=plan.view.projections,
            matrices=plan.matrices,
            slots=plan.view.slots,
            scales=plan.scales if splits else plan.scales / self._n_splits,
            splits=plan.splits if splits else np.zeros_like(plan.splits),
            n_splits=self._n_splits if splits else 1,
            grids=grids,
        )
        return self._kernel.run(jobs)
