"""Plan the images of several windows at once: a projection that several have in common is added once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Jobs, Priority
from bluesky_jit.tomo.plan import SAME_WEIGHT, Plan, make_plan
from bluesky_jit.tomo.window_view import WindowView


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shares:
    """Say what is added where: each row's projection, int64 (n,), goes with its scale, float64 (n,), into its sum,
    int64 (n,); the image of a frame is the sum of its members, bool (n_frames, n_sums).
    """

    rows: np.ndarray
    scales: np.ndarray
    sums: np.ndarray
    members: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """Hold the plan of each frame, the oldest first, and a view of all that they are made of."""

    view: WindowView
    plans: tuple[Plan, ...]

    @property
    def newest(self) -> Plan:
        return self.plans[-1]

    @property
    def usable(self) -> bool:
        """Say whether there is anything to make images of."""
        return all(plan.usable for plan in self.plans)

    def covers_all(self, n_projections: int) -> bool:
        """Say whether the images of all frames are quantitative, and have no wide gap unless a window is full."""
        return all(plan.covers_all(n_projections) for plan in self.plans)

    def jobs(self, grids: tuple[Grid, ...], *, splits: bool, priority: Priority) -> Jobs:
        """Return the job table for grids of one shape, whose answer `frames_of` takes apart."""
        shares, n_splits = self._shares, self.newest.n_splits
        own = self.view.acquisition[shares.rows] % n_splits
        n_sums = shares.members.shape[1]
        return Jobs(
            projections=self.view.projections,
            matrices=self._matrices,
            slots=self.view.slots[shares.rows],
            scales=shares.scales if splits else shares.scales / n_splits,
            splits=shares.sums * n_splits + own if splits else shares.sums,
            n_splits=n_sums * n_splits if splits else n_sums,
            grids=grids,
            priority=priority,
        )

    def frames_of(self, result: np.ndarray) -> np.ndarray:
        """Return float32 (n_grids, n_splits, n_frames, nz, ny, nx) of what a kernel made of `jobs`."""
        members = self._shares.members
        n_frames, n_sums = members.shape
        sums = result.reshape(len(result), n_sums, -1, *result.shape[2:])
        return np.stack([sums[:, members[frame]].sum(axis=1) for frame in range(n_frames)], axis=2)

    @cached_property
    def _matrices(self) -> np.ndarray:
        return self.newest.geometry.matrices(self.view.angles_rad)[self._shares.rows]

    @cached_property
    def _shares(self) -> _Shares:
        """Find which frames want a projection with the same weight: they share it."""
        weights = np.zeros((len(self.plans), len(self.view)))
        for plan, row in zip(self.plans, weights, strict=True):
            row[np.searchsorted(self.view.acquisition, plan.view.acquisition)] = plan.scales
        rows, scales, members = [], [], []
        missing = weights != 0
        while missing.any():
            columns = np.flatnonzero(missing.any(axis=0))
            weight = weights[missing[:, columns].argmax(axis=0), columns]
            alike = missing[:, columns] & (np.abs(weights[:, columns] - weight) <= SAME_WEIGHT * np.abs(weight))
            rows.append(columns)
            scales.append(weight)
            members.append(alike)
            missing[:, columns] &= ~alike
        distinct, sums = np.unique(np.concatenate(members, axis=1), axis=1, return_inverse=True)
        return _Shares(
            rows=np.concatenate(rows), scales=np.concatenate(scales), sums=sums.reshape(-1), members=distinct
        )


def make_sequence(windows: tuple[WindowView, ...], kept: WindowView, geometry: Geometry, n_splits: int) -> Sequence:
    """Weigh the projections of each window by itself; kept: a view that has all of them."""
    return Sequence(
        view=kept.between(windows[0].begin, windows[-1].end),
        plans=tuple(make_plan(view, geometry, n_splits) for view in windows),
    )
