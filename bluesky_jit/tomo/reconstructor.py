"""The seam between reconstruction and the session: what every reconstructor offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from bluesky_jit.messages import AnglesUsed, ProjectionBlock
from bluesky_jit.tomo.axis.estimate import AxisEstimate
from bluesky_jit.tomo.binning import BinnedFrames
from bluesky_jit.tomo.corrections.darkflat import DarkFlat
from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Priority
from bluesky_jit.tomo.prepare import Found


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceSet:
    """Carry images of grids, all made from the same projections.

    images: one float32 (nz, ny, nx) in 1/mm for each grid, of a sequence (n_frames, nz, ny, nx), whose middle frame the
    rest describes; angles: those used; complete: whether the projections cover the whole arc, or enough of it, short of
    which the images are too low by about the part that lacks; frame_time_s: time stamp of the newest projection;
    clipped_fraction: of the pixels of these projections, those too dark or too bright to measure; pushed: projections
    come by then; axis_offset_mm: where the axis was taken to be.
    """

    images: tuple[np.ndarray, ...]
    angles: AnglesUsed
    complete: bool
    frame_time_s: float
    clipped_fraction: float
    pushed: int
    axis_offset_mm: float


@runtime_checkable
class Reconstructor(Protocol):
    """Take frames in, give images of grids back. One thread pushes and settles; any threads ask."""

    @property
    def geometry(self) -> Geometry: ...

    @property
    def dark_flat(self) -> DarkFlat: ...

    @property
    def ready(self) -> bool: ...

    @property
    def n_projections(self) -> int:
        """Return how many acquisition numbers the window spans."""
        ...

    @property
    def newest(self) -> int | None:
        """Return the newest acquisition number, before the first one None."""
        ...

    @property
    def window_count(self) -> int: ...

    @property
    def clipped_fraction(self) -> float: ...

    @property
    def found(self) -> Found: ...

    @property
    def complete(self) -> bool: ...

    @property
    def revision(self) -> int:
        """Return a number that grows whenever slices would be made of other projections, or these filtered anew."""
        ...

    def set_axis_offset(self, offset_mm: float) -> None: ...

    def estimate_axis(self) -> AxisEstimate: ...

    def binned(self, points: int) -> BinnedFrames | None:
        """Return the window's frames as a detector of about so many columns would have seen them, from raw counts."""
        ...

    def push(self, block: ProjectionBlock) -> None: ...

    def borrow(self, dark_flat: DarkFlat, *, unasked: bool = False) -> None:
        """Do with another run's darks and flats where there are none; unasked: nobody has named that run."""
        ...

    def estimate_flats(self) -> None:
        """Do with an estimate from the projections that have come until flats come."""
        ...

    def settle(self, *, drained: bool = False) -> bool:
        """Let what came late take effect; drained: no more projections will come. Return whether images change."""
        ...

    def slices(self, grids: tuple[Grid, ...], *, priority: Priority = Priority.SHOWN) -> SliceSet | None: ...

    def sequences(
        self, grids: tuple[Grid, ...], *, until: int | None = None, priority: Priority = Priority.SHOWN
    ) -> SliceSet | None:
        """Reconstruct grids in each time frame, the oldest first; until: where the last one's window ends."""
        ...

    def pairs(self, grids: tuple[Grid, ...], *, until: int | None = None) -> np.ndarray | None:
        """Reconstruct grids from each split in each time frame: float32 (n_grids, n_splits, n_frames, nz, ny, nx)."""
        ...

    def warnings(self) -> tuple[str, ...]: ...
