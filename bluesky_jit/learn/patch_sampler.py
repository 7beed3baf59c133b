"""Draw the places of training patches, and of those that only measure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bluesky_jit.learn.guard import Guard, spread_mm
from bluesky_jit.learn.poses import (
    Poses,
    about_z,
    along,
    collect,
    inside,
    moved_into,
    near_slices,
    rotations,
    voxels_mm,
)
from bluesky_jit.learn.region import Region
from bluesky_jit.tomo.grid import Grid

FEWEST_ROWS = 8
"""Rows of a held-out patch at least: fewer tell more of the network's edges than of the sample."""
FILL = 0.85
"""Part of the guard's thickness that the rows of a held-out patch take; the rest is room to move."""


class PatchSampler:
    """Draw the poses of patches: some from the whole region, turned at random, the rest near the slices on show.

    Patches near a slice lie in planes parallel to it, with its directions and voxel size; the others have the voxel
    size of one of the slices, or `voxel_mm` when none is on show. A patch of several planes has them one voxel apart.
    A patch's centre lies in the region; at the rim it may stick out, for a rim that is seldom seen would be denoised
    badly and judged too well. In a region that is lower than a patch is wide, all but level ones would be more rim than
    sample: patches are turned about z only, and slices that stand upright count for nothing.
    """

    def __init__(
        self,
        region: Region,
        *,
        voxel_mm: float,
        patch: int = 20,
        batch: int = 32,
        depth: int = 1,
        seed: int = 0,
        guard: Guard | None = None,
        whole_fraction: float = 0.25,
        shown: Iterable[Grid] = (),
    ) -> None:
        """Begin; whole_fraction: part of a batch that comes from the whole region, all of it while nothing is shown."""
        if patch < FEWEST_ROWS:
            raise ValueError(f"learn.patch is {patch}: give at least {FEWEST_ROWS} points")
        if depth < 1 or depth % 2 == 0:
            raise ValueError(f"a patch has {depth} planes: give an odd number, of which the middle one is predicted")
        if not 0 <= whole_fraction <= 1:
            raise ValueError(f"whole_fraction is {whole_fraction}: give a part between 0 and 1")
        self.region = region
        self._voxel_mm = voxel_mm
        self._patch = patch
        self._batch = batch
        self._depth = depth
        self._seed = seed
        self._near_count = batch - round(whole_fraction * batch)
        self._near_mm = patch * voxel_mm / 2
        train_seed, held_out_seed = np.random.SeedSequence(seed).spawn(2)
        self._train_rng = np.random.default_rng(train_seed)
        self._held_out_rng = np.random.default_rng(held_out_seed)
        self._shown: tuple[Grid, ...] = ()
        self.guard = guard or self._guard_across(region)
        # A region without room for patches is refused here, not in the middle of a run.
        self._require_room()
        self.show(shown)

    def show(self, grids: Iterable[Grid]) -> None:
        """Follow the slices on show from the next batch on."""
        self._shown = tuple(grids)

    def move(self, region: Region) -> bool:
        """Take patches from another region from the next batch on; return whether the guard had to move with it.

        The guard stays as long as it crosses the middle of the region. Where it moves, it comes to lie where patches
        were trained on: held-out figures from before mean nothing any more. Raises ValueError, and changes nothing,
        where the new region has no room for patches.
        """
        before = self.region, self.guard
        normal = np.asarray(self.guard.normal)
        reach_mm = float(abs(normal) @ region.half_extents_mm)
        self.region = region
        if abs(float(self.guard.distances(np.asarray(region.centre_mm)))) <= reach_mm / 2 and self._has_room():
            return False
        self.guard = self._guard_across(region)
        try:
            self._require_room()
        except ValueError:
            self.region, self.guard = before
            raise
        return True

    def train(self) -> tuple[Grid, ...]:
        """Return the grids of a batch to train on, none of which touches the guard region."""
        return self._train(self._train_rng, self._usable(self._shown))

    def held_out(self, *, anywhere: bool = False) -> tuple[Grid, ...]:
        """Return the grids of a batch within the guard region, in the slices on show where they cross it.

        Their columns run along the guard. Where it is thinner than a patch they have fewer rows and more columns.
        anywhere: all over the guard instead, turned at random.
        """
        return self._held_out(self._held_out_rng, () if anywhere else self._usable(self._shown))

    def _guard_across(self, region: Region) -> Guard:
        """Make the guard: as thick as patches need, but no more of a small region than the shortest patches do."""
        thinnest = FEWEST_ROWS * self._voxel_mm / FILL
        thickness_mm = min(1.25 * self._patch * self._voxel_mm, max(0.3 * float(spread_mm(region).min()), thinnest))
        return Guard.across(region, thickness_mm=thickness_mm)

    def _require_room(self) -> None:
        rng = np.random.default_rng(self._seed)
        self._train(rng, ())
        self._held_out(rng, ())

    @property
    def _is_low(self) -> bool:
        return 2 * self.region.half_extents_mm[2] < self._patch * self._voxel_mm

    def _turned(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Return rotation matrices (count, 3, 3) of z, y and x: all that the region has room for."""
        return about_z(rng, count) if self._is_low else rotations(rng, count)

    def _usable(self, shown: tuple[Grid, ...]) -> tuple[Grid, ...]:
        """Return the slices whose patches the region has room for."""
        height_mm = 2 * self.region.half_extents_mm[2]
        return tuple(
            grid
            for grid in shown
            if not self._is_low or (self._patch - 1) * float(abs(grid.steps[1:, 2]).sum()) <= height_mm
        )

    def _has_room(self) -> bool:
        try:
            self._require_room()
        except ValueError:
            return False
        return True

    def _train(self, rng: np.random.Generator, shown: tuple[Grid, ...]) -> tuple[Grid, ...]:
        shape = (self._depth, self._patch, self._patch)

        def near(count: int) -> Poses:
            centres, steps, _ = near_slices(rng, shown, self.region, count, self._near_mm)
            return centres, steps

        def whole(count: int, sizes_mm: np.ndarray) -> Poses:
            return self.region.draw(rng, count), self._turned(rng, count) * sizes_mm[:, None, None]

        def allowed(corners: np.ndarray) -> np.ndarray:
            return self.region.contains(corners.mean(axis=1)) & ~self.guard.touches(corners)

        anywhere = [
            lambda count: whole(count, voxels_mm(rng, shown, self._voxel_mm, count)),
            lambda count: whole(count, np.full(count, self._voxel_mm)),
        ]
        n_near = self._near_count if shown else 0
        return collect(n_near, shape, [near, *anywhere] if shown else anywhere, allowed) + collect(
            self._batch - n_near, shape, anywhere, allowed
        )

    def _held_out(self, rng: np.random.Generator, shown: tuple[Grid, ...]) -> tuple[Grid, ...]:
        shape = self._held_out_shape(shown)

        def near(count: int) -> Poses:
            centres, steps, slices = near_slices(rng, shown, self.region, count, self._near_mm / 4)
            steps = along(self.guard, steps)
            across = steps[:, 1] / np.linalg.norm(steps[:, 1], axis=1, keepdims=True)
            centres = moved_into(self.guard, rng, centres, steps, across, shape)
            over = inside(shown, slices, centres)
            return centres[over], steps[over]

        def whole(count: int, steps: np.ndarray) -> Poses:
            steps = along(self.guard, steps)
            # Into the guard by the way that leads out of the region least: not across its flat side.
            way = np.asarray(self.guard.normal) * np.square(self.region.half_extents_mm)
            across = np.tile(way / np.linalg.norm(way), (count, 1))
            return moved_into(self.guard, rng, self.region.draw(rng, count), steps, across, shape), steps

        def allowed(corners: np.ndarray) -> np.ndarray:
            return self.region.contains(corners.mean(axis=1)) & self.guard.holds(corners)

        anywhere = [lambda count: whole(count, self._turned(rng, count) * self._voxel_mm)]
        if not shown:
            return collect(self._batch, shape, anywhere, allowed)
        parallel = lambda count: whole(count, near_slices(rng, shown, self.region, count, 0.0)[1])  # noqa: E731
        return collect(self._batch, shape, [near, parallel, *anywhere], allowed)

    def _held_out_shape(self, shown: tuple[Grid, ...]) -> tuple[int, int, int]:
        """Return the largest patch, of about as many points as the others, that fits across the guard."""
        coarsest = max([self._voxel_mm, *(float(np.linalg.norm(grid.steps[1])) for grid in shown)])
        rows = int(np.clip(FILL * self.guard.thickness_mm / coarsest, FEWEST_ROWS, self._patch))
        return self._depth, rows, min(round(self._patch**2 / rows), 2 * self._patch)
