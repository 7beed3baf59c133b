"""The record of which frames came: numbers every one, and counts what is missing, late, doubled or damaged."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field

import numpy as np

from bluesky_jit.messages import FrameKind

MOST_MISSING = 1000
"""A longer gap in the ids is no loss of frames but a counter that was set anew (or a spoilt id)."""
SAME_S = 1e-4
"""A frame's time stamp in two records differs by rounding; two frames of one id are further apart."""
CLOCKS_S = 2.0
"""Where two records stamp frames by different clocks, a frame's times differ by less than this."""


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


@dataclass(slots=True)
class _Frame:
    unique_id: int
    time_s: float
    epoch: int
    number: int
    good: bool = False
    """Some copy of it could be used."""
    by_tap: bool = False
    by_documents: bool = False
    filled: bool = False
    """Good, and the tap has brought no good copy."""
    damaged: bool = False
    """Some copy of it could not be used."""
    tap_repeats: int = 0
    document_repeats: int = 0

    def repeat(self, *, tapped: bool) -> bool:
        """Take a repeat from one source; return whether the other one has not brought as many."""
        self.tap_repeats += tapped
        self.document_repeats += not tapped
        return self.tap_repeats > self.document_repeats if tapped else self.document_repeats > self.tap_repeats


@dataclass(slots=True)
class _Epoch:
    """What came of one count of the detector, until it is set anew. A frame's number is its id less `base`."""

    base: int
    lowest: int
    highest: int
    announced: int | None = None
    """The highest id that documents have reached."""


@dataclass(slots=True)
class _Added:
    """Say what a new frame has shown: gap: epoch and id of frames that are missing before or after it."""

    frame: _Frame
    gap: list[tuple[int, int]]
    late: bool
    restarted: bool


@dataclass(slots=True)
class _Count:
    """Keep count of one kind of frames."""

    epochs: list[_Epoch] = field(default_factory=list)
    by_id: dict[int, list[_Frame]] = field(default_factory=dict)
    """In order of time."""
    taken: set[int] = field(default_factory=set)
    """Acquisition numbers that are given away."""
    in_time: list[tuple[float, int, _Frame]] = field(default_factory=list)
    last: _Frame | None = None
    missing: set[tuple[int, int]] = field(default_factory=set)
    """Epoch and id of each."""
    told: set[tuple[int, int]] = field(default_factory=set)
    """Of those, what was told to be lost."""
    absent: int = 0
    """Of a series that is shorter than it was to be."""
    unread: int = 0
    """Announced frames whose ids are not known: their file could not be read."""
    spoilt: dict[int, _Frame] = field(default_factory=dict)
    """Frames of which there are damaged copies only, by number."""
    good: int = 0
    unannounced: int = 0
    """Good frames that documents have not told of."""
    filled: int = 0
    tapped: bool = False
    highest: int = -1
    clocks_agree: bool = False
    """A frame's time stamps by the tap and in documents were the same."""

    def find(self, unique_id: int, time_s: float, *, tapped: bool) -> _Frame | None:
        """Return the frame of that id and time, if it is known."""
        frames = self.by_id.get(unique_id)
        if not frames:
            return None
        if math.isnan(time_s):
            return frames[-1]
        nearest = frames[-1]
        if not time_s > nearest.time_s:
            nearest = min(frames, key=lambda frame: 0.0 if math.isnan(frame.time_s) else abs(frame.time_s - time_s))
        apart = abs(nearest.time_s - time_s)
        if math.isnan(apart) or apart <= SAME_S:
            return nearest
        came_here = nearest.by_tap if tapped else nearest.by_documents
        return nearest if not came_here and not self.clocks_agree and apart <= CLOCKS_S else None

    def add(self, unique_id: int, time_s: float) -> _Added:
        """Number a new frame by its neighbours in time."""
        previous, following = self._neighbours(unique_id, time_s)
        epoch = self._epoch(unique_id, time_s, previous, following)
        restarted = epoch is None and previous is not None
        if epoch is None:
            self.epochs.append(_Epoch(base=unique_id - (self.highest + 1), lowest=unique_id, highest=unique_id))
            epoch = len(self.epochs) - 1
        gap = self._gap(epoch, unique_id)
        # Where the first frames of a new count, or the last ones of the old, come late, their numbers are given away.
        number = unique_id - self.epochs[epoch].base
        number = self.highest + 1 if number in self.taken else number
        frame = _Frame(unique_id=unique_id, time_s=time_s, epoch=epoch, number=number)
        late = following is not None or (math.isnan(time_s) and number < self.highest)
        same = self.by_id.setdefault(unique_id, [])
        place = len(same)
        while place and same[place - 1].time_s > time_s:
            place -= 1
        same.insert(place, frame)
        self.taken.add(number)
        self.highest = max(self.highest, number)
        self.spoilt[number] = self.last = frame
        if not math.isnan(time_s):
            bisect.insort(self.in_time, (time_s, unique_id, frame), key=lambda entry: entry[:2])
        return _Added(frame=frame, gap=gap, late=late, restarted=restarted)

    def _neighbours(self, unique_id: int, time_s: float) -> tuple[_Frame | None, _Frame | None]:
        if math.isnan(time_s) or not self.in_time:
            return self.last, None
        place = bisect.bisect(self.in_time, (time_s, unique_id), key=lambda entry: entry[:2])
        previous = self.in_time[place - 1][2] if place else None
        following = self.in_time[place][2] if place < len(self.in_time) else None
        return previous, following

    def _epoch(self, unique_id: int, time_s: float, previous: _Frame | None, following: _Frame | None) -> int | None:
        """Return which epoch a frame is of; None: a new one."""
        if previous is not None:
            step = unique_id - previous.unique_id
            if 0 < step <= MOST_MISSING or (following is not None and following.epoch == previous.epoch):
                return previous.epoch
            if math.isnan(time_s) and -MOST_MISSING <= step <= 0:
                return previous.epoch
        if following is not None and 0 < following.unique_id - unique_id <= MOST_MISSING:
            return following.epoch
        return None

    def _gap(self, index: int, unique_id: int) -> list[tuple[int, int]]:
        """Widen an epoch to an id; return what is missing in between."""
        epoch = self.epochs[index]
        beyond = (
            range(epoch.highest + 1, unique_id) if unique_id > epoch.highest else range(unique_id + 1, epoch.lowest)
        )
        gap = [(index, number) for number in beyond]
        self.missing.update(gap)
        self.missing.discard((index, unique_id))
        epoch.lowest, epoch.highest = min(epoch.lowest, unique_id), max(epoch.highest, unique_id)
        return gap

    def gone(self, *, finished: bool) -> list[tuple[int, int]]:
        """Return epoch and id of what is missing and will not come any more: documents have passed it."""
        missing = sorted(self.missing)
        if finished or not missing:
            return missing
        announced = [epoch.announced for epoch in self.epochs]
        newest = max((index for index, unique_id in enumerate(announced) if unique_id is not None), default=-1)
        return [
            (index, unique_id)
            for index, unique_id in missing
            if index < newest or ((reached := announced[index]) is not None and unique_id < reached)
        ]

    def newly_gone(self, *, finished: bool) -> tuple[int, ...]:
        """Return the ids of what is gone and was not told before."""
        places = [place for place in self.gone(finished=finished) if place not in self.told]
        self.told.update(places)
        return tuple(unique_id for _, unique_id in places)

    def lost(self, *, finished: bool) -> int:
        """Count what will not come any more."""
        spoilt = sum(finished or frame.by_documents for frame in list(self.spoilt.values()))
        return len(self.gone(finished=finished)) + spoilt + self.absent + self.unread_lost

    @property
    def not_here(self) -> int:
        return len(self.missing) + len(self.spoilt) + self.absent + self.unread_lost

    @property
    def unread_lost(self) -> int:
        """Count announced frames that could not be read: those that came by the tap have not been missed."""
        return max(0, self.unread - self.unannounced - (len(self.missing) if self.tapped else 0))


class Ledger:
    """Keep account of one run's frames, kind by kind, whether they came by the tap or by documents.

    The detector's uniqueId decides where it is known, and its time stamp where that count was set anew: a gap is a
    frame missing (until it comes), a repeat from one source a duplicate. What documents announce exists; a gap before
    what they have reached is lost.
    """

    def __init__(self) -> None:
        self._counts: dict[FrameKind, _Count] = {}
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

    def is_tapped(self, kind: FrameKind) -> bool:
        """Tell whether the tap has brought frames of a kind."""
        count = self._counts.get(kind)
        return count is not None and count.tapped

    def count(self, kind: FrameKind) -> int:
        count = self._counts.get(kind)
        return 0 if count is None else count.good

    def expect(self, kind: FrameKind, total: int) -> int:
        """Count as missing what a run was to bring and did not, at the ends of a series; return how many."""
        count = self._counts.setdefault(kind, _Count())
        never_came = max(0, total - count.good - count.not_here)
        count.absent += never_came
        return never_came

    def give_up(self, kind: FrameKind, n: int) -> None:
        """Count n frames that documents announced and that cannot be read."""
        self._counts.setdefault(kind, _Count()).unread += n

    def finish(self) -> tuple[int, ...]:
        """Take note that nothing will come any more: what is missing is lost; return the ids not yet told."""
        self._finished = True
        return tuple(unique_id for count in self._counts.values() for unique_id in count.newly_gone(finished=True))

    def known(
        self, kind: FrameKind, unique_ids: np.ndarray, times_s: np.ndarray | None, *, tapped: bool = False
    ) -> np.ndarray:
        """Tell which frames are here already, bool (n,)."""
        count = self._counts.get(kind)
        if count is None:
            return np.zeros(len(unique_ids), dtype=bool)
        times = np.full(len(unique_ids), np.nan) if times_s is None else times_s
        found = (
            count.find(unique_id, time_s, tapped=tapped)
            for unique_id, time_s in zip(unique_ids.tolist(), times.tolist(), strict=True)
        )
        return np.array([frame is not None and frame.good for frame in found], dtype=bool)

    def taken_before(self, kind: FrameKind, time_s: float) -> int | None:
        """Return the acquisition number after the last frame from before that time; None without times."""
        count = self._counts.get(kind)
        if count is None or not count.in_time:
            return None
        place = bisect.bisect(count.in_time, (time_s, 0), key=lambda entry: entry[:2])
        return count.in_time[place - 1][2].number + 1 if place else 0

    def enter(
        self,
        kind: FrameKind,
        unique_ids: np.ndarray | None,
        n: int,
        frame_times_s: np.ndarray | None = None,
        *,
        tapped: bool = False,
        usable: np.ndarray | None = None,
    ) -> Arrivals:
        """Enter n frames; without ids they are numbered as they come. usable: bool (n,), False for damaged ones."""
        count = self._counts.setdefault(kind, _Count())
        if unique_ids is None:
            unique_ids = np.arange(n) + len(count.taken)
        times = np.full(n, np.nan) if frame_times_s is None else frame_times_s
        acquisition, keep = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool)
        gaps: list[tuple[int, int]] = []
        late: list[int] = []
        duplicates: list[int] = []
        refused: list[int] = []
        restarted = False
        for i, (unique_id, time_s) in enumerate(zip(unique_ids.tolist(), times.tolist(), strict=True)):
            good = usable is None or bool(usable[i])
            frame = count.find(unique_id, time_s, tapped=tapped)
            if frame is None:
                added = count.add(unique_id, time_s)
                frame = added.frame
                gaps += added.gap
                restarted |= added.restarted
                # What fills gaps of the tap is late by its nature.
                if added.late and tapped == count.tapped:
                    late.append(unique_id)
            elif (frame.by_tap if tapped else frame.by_documents) and (frame.good or not good):
                duplicates += [unique_id] if frame.repeat(tapped=tapped) else []
            elif abs(frame.time_s - time_s) <= SAME_S:
                count.clocks_agree = True
            acquisition[i] = frame.number
            keep[i] = self._take(count, frame, tapped=tapped, good=good)
            if not good and not frame.damaged:
                frame.damaged = True
                refused.append(unique_id)
        self.late += len(late)
        self.duplicates += len(duplicates)
        self.corrupt += len(refused)
        if not tapped:
            count.unread -= min(count.unread, len(gaps))
        return Arrivals(
            acquisition=acquisition,
            keep=keep,
            missing=tuple(unique_id for epoch, unique_id in gaps if (epoch, unique_id) in count.missing)
            if tapped
            else count.newly_gone(finished=False),
            late=tuple(late),
            duplicates=tuple(duplicates),
            refused=tuple(refused),
            restarted=restarted,
        )

    def _take(self, count: _Count, frame: _Frame, *, tapped: bool, good: bool) -> bool:
        """Note where a frame came from; return whether it is new and good."""
        is_new = good and not frame.good
        if is_new:
            frame.good = True
            count.spoilt.pop(frame.number, None)
            count.good += 1
            count.unannounced += not frame.by_documents
            count.filled += 1
            frame.filled = True
        if tapped:
            count.tapped = True
            self.tapped += not frame.by_tap
            frame.by_tap = True
            count.filled -= good and frame.filled
            frame.filled &= not good
            return is_new
        epoch = count.epochs[frame.epoch]
        epoch.announced = frame.unique_id if epoch.announced is None else max(epoch.announced, frame.unique_id)
        count.unannounced -= frame.good and not frame.by_documents
        frame.by_documents = True
        return is_new
