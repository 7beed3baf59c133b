"""The record of which frames came: numbers every projection and counts what is missing, doubled or out of order."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from bluesky_jit.messages import FrameKind

MOST_MISSING = 1000
"""A longer gap in the ids is no loss of frames but a counter that was set anew (or a spoilt id)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """Say what one block brought.

    acquisition: the number of every frame; keep: which of them are new; missing, duplicates: by the detector's ids;
    restarted: whether that count was set anew.
    """

    acquisition: np.ndarray
    keep: np.ndarray
    missing: tuple[int, ...]
    duplicates: tuple[int, ...]
    restarted: bool


@dataclass(slots=True)
class _Count:
    """Keep count of one kind of frames. An acquisition number is the detector's id less `base`."""

    base: int
    highest: int = -1
    latest_s: float = -math.inf
    seen: set[int] = field(default_factory=set)
    missing: set[int] = field(default_factory=set)

    def restarted(self, unique_id: int, time_s: float) -> bool:
        """Tell a counter that was set anew from a frame that comes late: its frame is newer than all before."""
        number = unique_id - self.base
        backwards = number <= self.highest and time_s > self.latest_s
        return bool(self.seen) and (backwards or abs(number - self.highest) > MOST_MISSING)


class Ledger:
    """Keep account of one run's frames, kind by kind.

    The detector's uniqueId decides where it is known: a gap is a frame lost (until it comes), a repeat a duplicate.
    """

    def __init__(self) -> None:
        self._counts: dict[FrameKind, _Count] = {}

    @property
    def received(self) -> int:
        """Return how many different frames came."""
        return sum(len(count.seen) for count in self._counts.values())

    @property
    def lost(self) -> int:
        """Return how many frames the detector counted that did not come."""
        return sum(len(count.missing) for count in self._counts.values())

    def count(self, kind: FrameKind) -> int:
        count = self._counts.get(kind)
        return 0 if count is None else len(count.seen)

    def expect(self, kind: FrameKind, total: int) -> int:
        """Count as missing what a run was to bring and did not, at the ends of a series; return how many."""
        count = self._counts.setdefault(kind, _Count(base=0))
        never_came = max(0, total - len(count.seen) - len(count.missing))
        count.missing.update(range(count.highest + 1, count.highest + 1 + never_came))
        return never_came

    def enter(
        self, kind: FrameKind, unique_ids: np.ndarray | None, n: int, frame_times_s: np.ndarray | None = None
    ) -> Arrivals:
        """Enter n frames; without ids they are numbered as they come."""
        if unique_ids is None:
            unique_ids = np.arange(n) + self.count(kind)
        times = np.full(n, np.nan) if frame_times_s is None else frame_times_s
        acquisition, keep = np.zeros(n, dtype=np.int64), np.ones(n, dtype=bool)
        missing: list[int] = []
        duplicates: list[int] = []
        restarted = False
        for i, (unique_id, time_s) in enumerate(zip(unique_ids.tolist(), times.tolist(), strict=True)):
            count = self._counts.setdefault(kind, _Count(base=unique_id))
            if count.restarted(unique_id, time_s):
                count.base = unique_id - (count.highest + 1)
                restarted = True
            number = unique_id - count.base
            acquisition[i] = number
            if number in count.seen:
                keep[i] = False
                duplicates.append(unique_id)
                continue
            gap = range(count.highest + 1, number)
            count.missing.update(gap)
            missing.extend(gap)
            count.missing.discard(number)
            count.seen.add(number)
            count.highest = max(count.highest, number)
            count.latest_s = max(count.latest_s, time_s) if math.isfinite(time_s) else count.latest_s
        base = self._counts[kind].base if n else 0
        still = self._counts[kind].missing if n else set()
        return Arrivals(
            acquisition=acquisition,
            keep=keep,
            missing=tuple(number + base for number in missing if number in still),
            duplicates=tuple(duplicates),
            restarted=restarted,
        )
