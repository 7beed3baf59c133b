"""The record of which frames came: numbers every one, and counts what is missing, late, doubled or damaged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np

from bluesky_jit.intake.frame_count import HORIZON, SAME_S, FrameCount
from bluesky_jit.messages import FrameKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """Say what one block brought.

    acquisition: the number of every frame; keep: which of them are new and usable; by the detector's ids: missing,
    late (after a newer one), duplicates (twice from one source), refused (damaged, or without_angle, so many);
    restarted: whether the detector's count was set anew.
    """

    acquisition: np.ndarray
    keep: np.ndarray
    missing: tuple[int, ...] = ()
    late: tuple[int, ...] = ()
    duplicates: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()
    restarted: bool = False
    without_angle: int = 0


class Ledger:
    """Keep account of one run's frames, kind by kind, whether they came by the tap or by documents.

    The detector's uniqueId decides where it is known, and its time stamp where that count was set anew: a gap is a
    frame missing (until it comes), a repeat from one source a duplicate. What documents announce exists; a gap before
    what they have reached is lost.
    """

    def __init__(self, horizon: int = HORIZON) -> None:
        """Begin a run; horizon: so many good frames of a kind are kept one by one, and older ones in less room."""
        # All of them now: others read the figures while frames come.
        self._counts: dict[FrameKind, FrameCount] = {kind: FrameCount(horizon) for kind in get_args(FrameKind)}
        self._finished = False
        self.tapped = 0
        """Different frames that the tap has brought."""
        self.late = 0
        """Frames that came after a newer one of their source."""
        self.duplicates = 0
        """Repeats that the detector has sent: each, whether they came by the tap, by documents or by both."""
        self.corrupt = 0
        """Frames of which some copy was damaged."""

    @property
    def received(self) -> int:
        """Return how many different frames came."""
        return sum(count.good for count in self._counts.values())

    @property
    def missing(self) -> int:
        """Return how many frames the detector counted that are not here: lost ones, and those that may still come."""
        return sum(count.not_here for count in self._counts.values())

    @property
    def lost(self) -> int:
        """Return how many frames there were that could not be used, and will not be."""
        return sum(count.lost(finished=self._finished) for count in self._counts.values())

    @property
    def unread(self) -> int:
        """Return how many frames were announced and could not be read."""
        return sum(count.unread for count in self._counts.values())

    @property
    def backfilled(self) -> int:
        """Return how many frames the tap has missed, in a run that has one, and documents have brought."""
        return sum(count.filled for count in self._counts.values()) if self.tapped else 0

    @property
    def entries(self) -> int:
        """Return how many entries are kept; memory grows with them."""
        return sum(count.entries for count in self._counts.values())

    def is_tapped(self, kind: FrameKind) -> bool:
        """Tell whether the tap has brought frames of a kind."""
        return self._counts[kind].tapped

    def count(self, kind: FrameKind) -> int:
        return self._counts[kind].good

    def expect(self, kind: FrameKind, total: int) -> int:
        """Count as missing what a run was to bring and did not, at the ends of a series; return how many."""
        count = self._counts[kind]
        never_came = max(0, total - count.good - count.not_here)
        count.absent += never_came
        return never_came

    def give_up(self, kind: FrameKind, n: int) -> None:
        """Count n frames that documents announced and that cannot be read."""
        self._counts[kind].unread += n

    def unlocated(self, kind: FrameKind, n: int) -> None:
        """Count n frames of a run that has ended, which documents announced and did not say where they are."""
        count = self._counts[kind]
        # Those that left a gap in the numbers are counted there.
        count.unread += max(0, n - len(count.gaps))

    def unplaced(self, n: int) -> int:
        """Count those of n tapped frames that no document told of, in a run that has ended; return how many."""
        told_of = sum(count.good - count.unannounced + count.not_here for count in self._counts.values())
        left = max(0, n - told_of)
        # What they are nobody knows: most frames are projections.
        self._counts["projection"].absent += left
        return left

    def finish(self) -> tuple[int, ...]:
        """Take note that nothing will come any more: what is missing is lost; return the ids not yet told."""
        self._finished = True
        return tuple(unique_id for count in self._counts.values() for unique_id in count.gaps.newly_gone(finished=True))

    def known(
        self, kind: FrameKind, unique_ids: np.ndarray, times_s: np.ndarray | None, *, tapped: bool = False
    ) -> np.ndarray:
        """Tell which frames are here already, bool (n,)."""
        count = self._counts[kind]
        times = np.full(len(unique_ids), np.nan) if times_s is None else times_s
        found = (
            count.find(unique_id, time_s, tapped=tapped)
            for unique_id, time_s in zip(unique_ids.tolist(), times.tolist(), strict=True)
        )
        return np.array([frame is not None and frame.good for frame in found], dtype=bool)

    def taken_before(self, kind: FrameKind, time_s: float) -> int | None:
        """Return the acquisition number after the last frame from before that time; None without times."""
        previous, following = self._counts[kind].around(time_s)
        if previous is not None:
            return previous.number + 1
        return None if following is None else 0

    def enter(
        self,
        kind: FrameKind,
        unique_ids: np.ndarray | None,
        n: int,
        frame_times_s: np.ndarray | None = None,
        *,
        tapped: bool = False,
        usable: np.ndarray | None = None,
        here: bool = True,
    ) -> Arrivals:
        """Enter n frames; without ids they are numbered as they come.

        usable: bool (n,), False for damaged ones; here: False for frames that are whole, but could not be taken in.
        """
        count = self._counts[kind]
        times = np.full(n, np.nan) if frame_times_s is None else frame_times_s
        if unique_ids is None:
            count.unnumbered |= not count.numbered
            unique_ids = np.arange(n) + count.numbered
        elif count.unnumbered and n:
            count.take_numbers(int(unique_ids[0]), float(times[0]))
        acquisition, keep = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool)
        gaps: list[tuple[int, int]] = []
        late: list[int] = []
        duplicates: list[int] = []
        refused: list[int] = []
        restarted = False
        for i, (unique_id, time_s) in enumerate(zip(unique_ids.tolist(), times.tolist(), strict=True)):
            good = here and (usable is None or bool(usable[i]))
            frame = count.find(unique_id, time_s, tapped=tapped)
            if frame is None:
                added = count.add(unique_id, time_s)
                frame = added.frame
                self._explain_gaps(kind, time_s)
                gaps += added.gap
                restarted |= added.restarted
                # What fills gaps of the tap is late by its nature.
                if added.late and tapped == count.tapped:
                    late.append(unique_id)
            elif (frame.by_tap if tapped else frame.by_documents) and (frame.good or not good):
                duplicates += [unique_id] if frame.repeat(tapped=tapped) else []
            elif not frame.settled and abs(frame.time_s - time_s) <= SAME_S:
                count.clocks_agree = True
            acquisition[i] = frame.number
            self.tapped += tapped and not frame.by_tap
            keep[i] = count.take(frame, tapped=tapped, good=good)
            if here and not good and not frame.damaged:
                frame.damaged = True
                refused.append(unique_id)
            count.settle(frame)
        self.late += len(late)
        self.duplicates += len(duplicates)
        self.corrupt += len(refused)
        if not tapped:
            count.unread -= min(count.unread, len(gaps))
        return Arrivals(
            acquisition=acquisition,
            keep=keep,
            missing=tuple(unique_id for epoch, unique_id in gaps if (epoch, unique_id) in count.gaps)
            if tapped
            else count.gaps.newly_gone(finished=False),
            late=tuple(late),
            duplicates=tuple(duplicates),
            refused=tuple(refused),
            restarted=restarted,
        )

    def _explain_gaps(self, kind: FrameKind, time_s: float) -> None:
        """Miss no frames of one kind between which others were taken: flats again after projections, for instance."""
        if math.isnan(time_s):
            return
        count, others = self._counts[kind], [other for name, other in self._counts.items() if name != kind]
        for other in others:
            other.explain(time_s)
        neighbours = [frame for frame in count.around(time_s) if frame is not None] if count.gaps else []
        for begin_s, end_s in (sorted((frame.time_s, time_s)) for frame in neighbours):
            for at_s in (other.taken_between(begin_s, end_s) for other in others):
                if at_s is not None:
                    count.explain(at_s)
