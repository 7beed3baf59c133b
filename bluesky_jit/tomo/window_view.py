"""Name the projections of a window at one moment."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.jobs import Slots
from bluesky_jit.tomo.redundancy import ShortScan


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowView:
    """Name the projections of a window at one moment, in the order of acquisition. Its small arrays never change.

    projections: the store that the slots lie in; slots: int64 (n,); serials: int64 (n,), counted as they came;
    angles_rad: float64 (n,), continuous over turns; acquisition, unique_ids: int64 (n,); frame_times_s: float64 (n,);
    clipped: float32 (n,), the fraction of clipped pixels; each_filtered: bool (n,); begin, end: the acquisition numbers
    from begin to end − 1 are what it is about; pushed: how many projections had come; whole: in "whole-turns", whether
    a window is; short_scan: the arc whose weights they were filtered with; slot_geometry: the set-up whose pixels the
    slots hold, where the window was told, as it was when all of them were last filtered; revision: grows whenever other
    projections are named, or the same ones filtered anew.
    """

    projections: Slots
    slots: np.ndarray
    serials: np.ndarray
    angles_rad: np.ndarray
    acquisition: np.ndarray
    unique_ids: np.ndarray
    frame_times_s: np.ndarray
    clipped: np.ndarray
    each_filtered: np.ndarray
    begin: int
    end: int
    pushed: int
    whole: bool
    short_scan: ShortScan | None
    slot_geometry: Geometry | None = None
    revision: int

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def filtered(self) -> bool:
        """Say whether all of them are filtered (they are not before the first flat)."""
        return bool(self.each_filtered.all())

    def between(self, begin: int, end: int) -> WindowView:
        """Name only those of the acquisition numbers from begin to end − 1."""
        part = slice(*np.searchsorted(self.acquisition, (begin, end)))
        return replace(
            self,
            slots=self.slots[part],
            serials=self.serials[part],
            angles_rad=self.angles_rad[part],
            acquisition=self.acquisition[part],
            unique_ids=self.unique_ids[part],
            frame_times_s=self.frame_times_s[part],
            clipped=self.clipped[part],
            each_filtered=self.each_filtered[part],
            begin=begin,
            end=end,
        )
