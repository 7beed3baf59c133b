"""Say how each projection of a window enters the images: its matrix, its split and its weight."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bluesky_jit.tomo.arcs import SEAM_RAD, Arc, covered_arc
from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Jobs, Priority
from bluesky_jit.tomo.weights import split_weights
from bluesky_jit.tomo.window_view import WindowView

LEAST_PER_SPLIT = 2
"""Projections that a split needs: what an angle stands for is half the gaps to its neighbours (weights.py)."""
SAME_WEIGHT = 1e-6
"""A projection whose weight changes by less than this part is left as it is: the image by less than the same part."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Hold how each projection of a view enters; with these scales, each split by itself estimates the object.

    geometry: whose matrices map to the window's slots; splits: int64 (n,); scales: float64 (n,) in rad.
    """

    view: WindowView
    geometry: Geometry
    arc: Arc
    splits: np.ndarray
    scales: np.ndarray
    n_splits: int

    @cached_property
    def matrices(self) -> np.ndarray:
        """Return float64 (n, 3, 4), made when first asked for: slices on show need those of a few projections only."""
        return self.geometry.matrices(self.view.angles_rad)

    @property
    def usable(self) -> bool:
        """Say whether there is anything to make images of."""
        counts = np.bincount(self.splits, minlength=self.n_splits)
        return self.view.filtered and int(counts.min()) >= LEAST_PER_SPLIT

    @property
    def quantitative(self) -> bool:
        """Say whether every line through the field of view counts once, so that images hold true values."""
        scan = self.view.short_scan
        return self.arc.closed if scan is None else scan.is_covered_by(self.arc)

    def covers_all(self, n_projections: int) -> bool:
        """Say whether images are quantitative and have no wide gap, unless the window is full."""
        acquisition = self.view.acquisition
        full = len(acquisition) > 0 and acquisition[-1] - acquisition[0] + 1 >= n_projections
        return bool(self.quantitative and (full or self.arc.widest_inside_rad <= SEAM_RAD))

    def jobs(self, grids: tuple[Grid, ...], *, splits: bool, priority: Priority) -> Jobs:
        """Return the job table for grids of one shape: one image for each split, or their mean as the only one."""
        return Jobs(
            projections=self.view.projections,
            matrices=self.matrices,
            slots=self.view.slots,
            scales=self.scales if splits else self.scales / self.n_splits,
            splits=self.splits if splits else np.zeros_like(self.splits),
            n_splits=self.n_splits if splits else 1,
            grids=grids,
            priority=priority,
        )


def make_plan(view: WindowView, geometry: Geometry, n_splits: int) -> Plan:
    """Weigh a view's projections: each split's weights sum to the arc, and each line counts once."""
    arc = covered_arc(view.angles_rad, geometry.period_rad)
    splits = view.acquisition % n_splits
    # A full turn sees every line twice (Kak and Slaney, eq. 3.176), half a turn of a parallel beam once; in a short
    # scan Parker's weights have already made the two of a line sum to one.
    redundancy = 1.0 if view.short_scan else np.pi / geometry.period_rad
    return Plan(
        view=view,
        geometry=geometry,
        arc=arc,
        splits=splits,
        scales=redundancy * split_weights(view.angles_rad, splits, n_splits, arc),
        n_splits=n_splits,
    )
