"""Keep images that are asked for again and again up to date: add the newest projection, take the oldest out.

See docs/explanations/slices.md for how the arithmetic stays exact.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Jobs, Kernel, Priority
from bluesky_jit.tomo.plan import SAME_WEIGHT, Plan
from bluesky_jit.tomo.window_view import WindowView

logger = logging.getLogger(__name__)

MOST_CHANGES = 0.5
"""Part of the window from which on changes cost about as much as a full pass, which is exact."""
CHECK_WINDOWS = 8
"""Full windows of additions and subtractions after which a full pass checks the sum: it costs one part in sixteen of
what they did, ..."""
CHECK_JOBS = 16_384
"""... and no more than these: each rounds to 3e-8 of the image, which adds up, as random steps do, to 4e-6."""
ROUNDING = 1e-5
"""Difference from a full pass, as part of the largest value, above which something other than rounding is at work."""
KEPT_VOXELS = 2**26
"""Voxels kept in all images of a frame, 256 MB: three slices of 4096² and a preview."""
REMEMBERED = 64
"""Grids asked for once that are remembered, to keep the image when they are asked for again."""

Intact = Callable[[WindowView], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    """Say which projections an image is the sum of: for each slot of the store, the scale it was added with and its
    angle, float64 (n_slots,); 0 where it was not.
    """

    plan: Plan
    scales: np.ndarray
    angles_rad: np.ndarray


@dataclass(slots=True, kw_only=True)
class _Running:
    """Keep the image of a grid, float32 (1, 1, nz, ny, nx), and what it is the sum of."""

    image: np.ndarray
    content: _Content
    jobs_since_check: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Changes:
    """Say what takes images from one content to another: the slots and the signed scales to add them with."""

    content: _Content
    slots: np.ndarray
    scales: np.ndarray
    matrices: np.ndarray


@dataclass(slots=True)
class RunningImages:
    """Make images of grids from a window, at the cost of what has changed for grids that were asked for before.

    Any threads may ask: an image that one of them works on is out of the others' reach.
    """

    kernel: Kernel
    n_slots: int
    _running: dict[Grid, _Running] = field(default_factory=dict)
    _asked: dict[Grid, None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """Held where the two are looked into, and never while images are made."""

    @property
    def kept_voxels(self) -> int:
        """Count the voxels of all images that are kept."""
        with self._lock:
            return self._count_voxels()

    def _count_voxels(self) -> int:
        return sum(math.prod(grid.shape) for grid in self._running)

    def images(
        self, plan: Plan, grids: tuple[Grid, ...], intact: Intact, *, priority: Priority = Priority.SHOWN
    ) -> list[np.ndarray] | None:
        """Return float32 (nz, ny, nx) for each grid, or None when the view was overwritten meanwhile."""
        made: dict[Grid, np.ndarray] = {}
        # By identity, beside the content itself: while it is held, no other one has its identity.
        changes: dict[int, tuple[_Content, _Changes | None]] = {}
        for grid in dict.fromkeys(grids):
            with self._lock:
                running = self._running.pop(grid, None)
            if running is None:
                continue
            key = id(running.content)
            if key not in changes:
                changes[key] = running.content, self._changes(running.content, plan, intact)
            image = self._brought_up_to_date(running, grid, changes[key][1], intact, priority)
            if image is not None:
                made[grid] = image
        missing = tuple(grid for grid in dict.fromkeys(grids) if grid not in made)
        for members in by_shape(missing):
            images = self.kernel.run(plan.jobs(members, splits=False, priority=priority))
            made |= dict(zip(members, images[:, 0], strict=True))
        if not intact(plan.view):
            return None
        kept = {grid: made[grid] for grid in missing}
        with self._lock:
            self._keep(plan, kept)
        return [made[grid] for grid in grids]

    def _changes(self, content: _Content, plan: Plan, intact: Intact) -> _Changes | None:
        """Find what takes an image to a plan; None when a full pass is due."""
        before, view = content.plan, plan.view
        if view.projections is not before.view.projections or plan.geometry is not before.geometry:
            return None
        if not intact(before.view):
            return None
        wanted = _content_of(plan, self.n_slots)
        differences = wanted.scales - content.scales
        changed = np.abs(differences) > SAME_WEIGHT * np.abs(content.scales)
        slots = np.flatnonzero(changed)
        if len(slots) > MOST_CHANGES * len(view):
            return None
        scales, angles = content.scales.copy(), wanted.angles_rad
        scales[slots] = wanted.scales[slots]
        leaving = content.scales[slots] != 0
        angles_of_jobs = np.where(leaving, content.angles_rad[slots], angles[slots])
        return _Changes(
            content=_Content(plan=plan, scales=scales, angles_rad=angles),
            slots=slots,
            scales=differences[slots],
            matrices=plan.geometry.matrices(angles_of_jobs) if len(slots) else np.zeros((0, 3, 4)),
        )

    def _brought_up_to_date(
        self, running: _Running, grid: Grid, changes: _Changes | None, intact: Intact, priority: Priority
    ) -> np.ndarray | None:
        """Return a copy of the image after the changes, which is kept; None when it has to be made anew."""
        if changes is None:
            return None
        plan, before = changes.content.plan, running.content.plan
        if len(changes.slots):
            self.kernel.run(
                Jobs(
                    projections=plan.view.projections,
                    matrices=changes.matrices,
                    slots=changes.slots,
                    scales=changes.scales,
                    splits=np.zeros(len(changes.slots), dtype=np.int64),
                    n_splits=1,
                    grids=(grid,),
                    priority=priority,
                ),
                out=running.image,
            )
            # What was taken out must have been what was put in.
            if not (intact(before.view) and intact(plan.view)):
                return None
        running.content = changes.content
        running.jobs_since_check += len(changes.slots)
        if running.jobs_since_check >= min(2 * CHECK_WINDOWS * len(plan.view), CHECK_JOBS) and not self._checks(
            running, grid, intact, priority
        ):
            return None
        # Before others can reach it.
        image = running.image[0, 0].copy()
        with self._lock:
            self._running[grid] = running
        return image

    def _checks(self, running: _Running, grid: Grid, intact: Intact, priority: Priority) -> bool:
        """Put a full pass in the image's place and say how much they differ; return False when it came too late."""
        plan = running.content.plan
        exact = self.kernel.run(plan.jobs((grid,), splits=False, priority=priority))
        if not intact(plan.view):
            return False
        largest = float(np.abs(exact).max())
        difference = float(np.abs(exact - running.image).max()) / largest if largest else 0.0
        logger.debug("a slice that was kept up to date was checked: it differs by %.1e", difference)
        if difference > ROUNDING:
            logger.warning(
                "a slice that was kept up to date had come to differ by %.1e of its largest value from one made anew "
                "(rounding is below %.0e): it was replaced; please report this",
                difference,
                ROUNDING,
            )
        running.image, running.jobs_since_check = exact, 0
        running.content = _content_of(plan, self.n_slots)
        return True

    def _keep(self, plan: Plan, made: dict[Grid, np.ndarray]) -> None:
        """Keep the images of grids that are asked for again: most are asked for once, such as a volume's slabs.

        The lock is held.
        """
        content = None
        for grid, image in made.items():
            if grid in self._asked:
                content = content or _content_of(plan, self.n_slots)
                self._running[grid] = _Running(image=image.copy()[None, None], content=content)
            self._asked.pop(grid, None)
            self._asked[grid] = None
        while len(self._asked) > REMEMBERED:
            self._asked.pop(next(iter(self._asked)), None)
        for grid, running in list(self._running.items()):
            # Of no use any more, and it would keep the memory of the store before.
            if running.content.plan.view.projections is not plan.view.projections:
                self._running.pop(grid, None)
        while self._count_voxels() > KEPT_VOXELS:
            self._running.pop(next(iter(self._running)), None)


def by_shape(grids: tuple[Grid, ...]) -> list[tuple[Grid, ...]]:
    """Return the grids of each shape, which one job table takes."""
    return [tuple(grid for grid in grids if grid.shape == shape) for shape in dict.fromkeys(g.shape for g in grids)]


def _content_of(plan: Plan, n_slots: int) -> _Content:
    """Say what a full pass for the mean of the splits is the sum of."""
    scales, angles = np.zeros(n_slots), np.zeros(n_slots)
    scales[plan.view.slots] = plan.scales / plan.n_splits
    angles[plan.view.slots] = plan.view.angles_rad
    return _Content(plan=plan, scales=scales, angles_rad=angles)
