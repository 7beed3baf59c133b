"""Keep the newest projections: raw counts beside filtered values, with what is known of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from numba import njit

from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.jobs import Slots
from bluesky_jit.tomo.memory import require_memory
from bluesky_jit.tomo.prepare import FrameInfo
from bluesky_jit.tomo.redundancy import ShortScan
from bluesky_jit.tomo.window_view import WindowView

Mode = Literal["sliding", "whole-turns"]
FULL_SCALE = 32767


class Window:
    """Hold the projections of the last `n_projections` acquisition numbers, for one writer and any number of readers.

    A reader takes `view`, which is replaced as a whole and never changes, works on its slots, and then asks
    `intact(view)`: the store has `spare` slots more than it keeps, so what a view names is overwritten only that many
    pushes later. "whole-turns": a view names the last whole window, 0 to n − 1 or n to 2n − 1 and so on, so that no two
    windows share a projection; what has come counts before the first one is whole.
    `kept` is a view of all that is kept: the window, `past` acquisition numbers before it, for windows that end in the
    past, and with "whole-turns" the window that is being filled. From its `begin` on nothing has been dropped.
    No locks: the writer never waits for a reader.
    """

    def __init__(
        self,
        n_v: int,
        n_u: int,
        n_projections: int,
        *,
        mode: Mode = "sliding",
        past: int = 0,
        spare: int | None = None,
        slot_geometry: Geometry | None = None,
        memory_gb: float | None = None,
    ) -> None:
        """Make an empty window of frames (n_v, n_u), whose filtered rows may be wider: as those of slot_geometry.

        Raises ValueError when it would take more than memory_gb (default: half of what the machine has free).
        """
        if n_projections < 1:
            raise ValueError(f"n_projections is {n_projections}: a window holds at least one projection")
        self.n_projections = n_projections
        self.mode: Mode = mode
        self.spare = n_projections // 4 + 8 if spare is None else spare
        # The window that is on show, and the one that is being filled.
        self._kept = past + (n_projections if mode == "sliding" else 2 * n_projections)
        n = self._kept + self.spare
        self._slot_geometry = slot_geometry
        self._store_shape = (n, n_v + 2, (slot_geometry.n_u if slot_geometry else n_u) + 2)
        counts_bytes = n * n_v * n_u * np.dtype(np.uint16).itemsize
        slots_bytes = math.prod(self._store_shape) * np.dtype(np.int16).itemsize
        # Filtering anew takes a second store, since readers may be at work on the first one.
        require_memory(
            counts_bytes + 2 * slots_bytes,
            limit_gb=memory_gb,
            what=f"the window of {n_projections} projections of {n_v}×{n_u} pixels"
            + ("" if mode == "sliding" else ", with as many for the next one,")
            + (f", with {past} before them for time frames and windows in the past," if past else ""),
        )
        self._counts = np.zeros((n, n_v, n_u), dtype=np.uint16)
        self._projections = _empty_slots(self._store_shape)
        self._angles = np.zeros(n)
        self._serials = np.full(n, -1, dtype=np.int64)
        self._acquisition = np.zeros(n, dtype=np.int64)
        self._unique_ids = np.zeros(n, dtype=np.int64)
        self._frame_times = np.zeros(n)
        self._clipped = np.zeros(n, dtype=np.float32)
        self._filtered = np.zeros(n, dtype=bool)
        self._short_scan: ShortScan | None = None
        self._begun = 0
        self._done = 0
        self._dropped = -1
        """The highest acquisition number of the projections that are no longer kept."""
        self._revision = 0
        self.kept, self.view = self._make_views()

    @property
    def n_slots(self) -> int:
        """Return how many projections the store has room for."""
        return len(self._counts)

    @property
    def next_acquisition(self) -> int:
        """Return the acquisition number after the newest of all."""
        return self.kept.end

    @property
    def pushed(self) -> int:
        return self._done

    def push(
        self,
        counts: np.ndarray,
        filtered: np.ndarray | None,
        info: FrameInfo,
        *,
        unique_id: int,
        clipped: float = 0.0,
    ) -> None:
        """Store one projection, counts uint16 and filtered float32 (n_v, n_u) or, while there are no flats, None.

        One that comes so late that it would not be kept beside the newest ones is left out: it may not drive any out.
        """
        if info.acquisition < self.kept.end - self._kept:
            return
        self._begun += 1
        slot = self._done % len(self._counts)
        if self._done >= self._kept:
            leaving = (self._done - self._kept) % len(self._counts)
            self._dropped = max(self._dropped, int(self._acquisition[leaving]))
        previous = self._angle_before(info)
        self._counts[slot] = counts
        self._angles[slot] = info.angle_rad + 2 * np.pi * np.round((previous - info.angle_rad) / (2 * np.pi))
        self._serials[slot] = self._done
        self._acquisition[slot] = info.acquisition
        self._unique_ids[slot] = unique_id
        self._frame_times[slot] = info.time_s
        self._filtered[slot], self._clipped[slot] = filtered is not None, clipped
        if filtered is not None:
            _store(self._projections, slot, filtered)
        self._done += 1
        self._look_again()

    def _angle_before(self, info: FrameInfo) -> float:
        """Return the angle, continuous over turns, of the projection before one that is new: late ones have theirs."""
        kept = self.kept
        if not len(kept):
            return info.angle_rad
        return float(kept.angles_rad[max(int(np.searchsorted(kept.acquisition, info.acquisition)) - 1, 0)])

    def intact(self, view: WindowView) -> bool:
        """Say whether the projections that a view names are unchanged; ask it after the kernel has run on them."""
        if view.projections is not self._projections or not len(view):
            return True
        # A projection lies where it is until as many have begun to come as there are slots.
        return self._begun <= int(view.serials.min()) + self.n_slots

    def refilter(
        self,
        function: Callable[[np.ndarray, FrameInfo], tuple[np.ndarray, float]],
        *,
        short_scan: ShortScan | None = None,
        slot_geometry: Geometry | None = None,
    ) -> None:
        """Filter the raw counts again; function takes counts (n_v, n_u) to filtered values and the clipped fraction.

        The results go to a new store: views taken before keep the old one, which nobody writes to any more. Where
        anything is raised, nothing has changed. short_scan, slot_geometry: the arc whose weights the function applies
        and the set-up whose pixels it gives (the same as before by default), of these and of those that come.
        """
        slot_geometry = slot_geometry or self._slot_geometry
        n, rows, columns = self._store_shape
        shape = (n, rows, slot_geometry.n_u + 2 if slot_geometry else columns)
        projections, all_filtered, all_clipped = _empty_slots(shape), self._filtered.copy(), self._clipped.copy()
        for slot in self._newest_slots():
            info = FrameInfo(
                angle_rad=float(self._angles[slot]),
                acquisition=int(self._acquisition[slot]),
                time_s=float(self._frame_times[slot]),
            )
            filtered, all_clipped[slot] = function(self._counts[slot], info)
            _store(projections, slot, filtered)
            all_filtered[slot] = True
        self._projections, self._filtered, self._clipped = projections, all_filtered, all_clipped
        self._store_shape, self._slot_geometry, self._short_scan = shape, slot_geometry, short_scan
        self._look_again()

    def counts_of(self, view: WindowView, rows: slice) -> np.ndarray:
        """Return a copy of rows of a view's raw counts, uint16 (n, n_rows, n_u); ask `intact` after it."""
        return self._counts[view.slots, rows]

    def unfilter(self) -> None:
        """Take back what was filtered: there are raw counts only until they are filtered again."""
        self._filtered[:] = False
        self._look_again()

    def _newest_slots(self) -> np.ndarray:
        pushes = np.arange(max(0, self._done - self._kept), self._done)
        return pushes % len(self._counts)

    def _look_again(self) -> None:
        """Replace the views; in "whole-turns" most projections leave what `view` names as it was."""
        kept, view = self._make_views()
        same = view.projections is self.view.projections and view.filtered == self.view.filtered
        if not (same and np.array_equal(view.serials, self.view.serials)):
            self._revision += 1
            view = replace(view, revision=self._revision)
        self.kept, self.view = kept, view

    def _make_views(self) -> tuple[WindowView, WindowView]:
        """Return what is kept, and the window of it."""
        slots = self._newest_slots()
        # Frames can be filled in late or sent twice: order by acquisition and let the last one sent count.
        acquisition, last = np.unique(self._acquisition[slots][::-1], return_index=True)
        slots = slots[::-1][last]
        end = int(acquisition[-1]) + 1 if len(slots) else 0
        kept = WindowView(
            projections=self._projections,
            slots=slots.astype(np.int64),
            serials=self._serials[slots],
            angles_rad=self._angles[slots],
            acquisition=acquisition,
            unique_ids=self._unique_ids[slots],
            frame_times_s=self._frame_times[slots],
            clipped=self._clipped[slots],
            each_filtered=self._filtered[slots],
            begin=max(0, end - self._kept, self._dropped + 1),
            end=end,
            pushed=self._done,
            whole=True,
            short_scan=self._short_scan,
            slot_geometry=self._slot_geometry,
            revision=self._revision,
        )
        if self.mode == "sliding":
            return kept, kept.between(end - self.n_projections, end)
        whole = end >= self.n_projections
        if whole:
            end = end // self.n_projections * self.n_projections
        return kept, replace(kept.between(end - self.n_projections, end), whole=whole)


def _empty_slots(shape: tuple[int, int, int]) -> Slots:
    return Slots(
        values=np.zeros(shape, dtype=np.int16),
        scales=np.ones(shape[0], dtype=np.float32),
        versions=np.zeros(shape[0], dtype=np.int64),
    )


def _store(projections: Slots, slot: int, filtered: np.ndarray) -> None:
    projections.scales[slot] = quantise(filtered, projections.values[slot])
    projections.versions[slot] += 1


def quantise(filtered: np.ndarray, slot: np.ndarray) -> np.float32:
    """Write float32 (n_v, n_u) into the inside of an int16 slot (n_v + 2, n_u + 2); return its scale."""
    filtered = np.ascontiguousarray(filtered, dtype=np.float32)
    # Without their sign, floats are ordered like the integers of the same bits.
    largest = np.int32(_largest_magnitude(filtered.view(np.int32))).view(np.float32)
    factor = np.float32(FULL_SCALE) / largest if largest > 0 else np.float32(0)
    _write_rounded(filtered, factor, slot)
    return largest / np.float32(FULL_SCALE) if largest > 0 else np.float32(1)


@njit(cache=True, nogil=True, error_model="numpy")
def _largest_magnitude(bits):
    """Return the largest of integers (n_v, n_u) without their sign bit: a maximum of integers is taken in vectors."""
    largest = np.int32(0)
    for v in range(bits.shape[0]):
        for u in range(bits.shape[1]):
            magnitude = bits[v, u] & np.int32(0x7FFFFFFF)
            largest = magnitude if magnitude > largest else largest
    return largest


@njit(cache=True, nogil=True, error_model="numpy")
def _write_rounded(filtered, factor, slot):
    for v in range(filtered.shape[0]):
        for u in range(filtered.shape[1]):
            slot[v + 1, u + 1] = np.int16(np.int32(np.rint(filtered[v, u] * factor)))
