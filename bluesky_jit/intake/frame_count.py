"""The count of one kind of frames in a run: each has a number, and gaps in the detector's ids are known."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field

MOST_MISSING = 1000
"""A longer gap in the ids is no loss of frames but a counter that was set anew (or a spoilt id)."""
SAME_S = 1e-4
"""A frame's time stamp in two records differs by rounding; two frames of one id are further apart."""
CLOCKS_S = 2.0
"""Where two records stamp frames by different clocks, a frame's times differ by less than this."""


@dataclass(slots=True)
class CountedFrame:
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
class Epoch:
    """What came of one count of the detector, until it is set anew. A frame's number is its id less `base`."""

    base: int
    lowest: int
    highest: int
    announced: int | None = None
    """The highest id that documents have reached."""


@dataclass(slots=True)
class Added:
    """Say what a new frame has shown: gap: epoch and id of frames that are missing before or after it."""

    frame: CountedFrame
    gap: list[tuple[int, int]]
    late: bool
    restarted: bool


@dataclass(slots=True)
class FrameCount:
    """Keep count of one kind of frames."""

    epochs: list[Epoch] = field(default_factory=list)
    by_id: dict[int, list[CountedFrame]] = field(default_factory=dict)
    """In order of time."""
    taken: set[int] = field(default_factory=set)
    """Acquisition numbers that are given away."""
    in_time: list[tuple[float, int, CountedFrame]] = field(default_factory=list)
    last: CountedFrame | None = None
    missing: set[tuple[int, int]] = field(default_factory=set)
    """Epoch and id of each."""
    told: set[tuple[int, int]] = field(default_factory=set)
    """Of those, what was told to be lost."""
    absent: int = 0
    """Of a series that is shorter than it was to be."""
    unread: int = 0
    """Announced frames whose ids are not known: their file could not be read."""
    spoilt: dict[int, CountedFrame] = field(default_factory=dict)
    """Frames of which there are damaged copies only, by number."""
    good: int = 0
    unannounced: int = 0
    """Good frames that documents have not told of."""
    filled: int = 0
    tapped: bool = False
    highest: int = -1
    unnumbered: bool = False
    """All frames so far came without the detector's ids, and were given ids in their order."""
    clocks_agree: bool = False
    """A frame's time stamps by the tap and in documents were the same."""

    def find(self, unique_id: int, time_s: float, *, tapped: bool) -> CountedFrame | None:
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

    def take_numbers(self, unique_id: int, time_s: float) -> None:
        """Give frames that came without ids those that the first frame with one tells.

        It was taken before the record of it was stamped: it is the first of those not older, or else the next one.
        """
        self.unnumbered = False
        place = len(self.in_time)
        if not math.isnan(time_s):
            place = bisect.bisect_left(self.in_time, time_s - SAME_S, key=lambda entry: entry[0])
        number = self.in_time[place][2].number if place < len(self.in_time) else self.highest + 1
        shift = unique_id - number
        for epoch in self.epochs:
            epoch.base, epoch.lowest, epoch.highest = epoch.base + shift, epoch.lowest + shift, epoch.highest + shift
            epoch.announced = None if epoch.announced is None else epoch.announced + shift
        for frames in self.by_id.values():
            for frame in frames:
                frame.unique_id += shift
        self.by_id = {known + shift: frames for known, frames in self.by_id.items()}
        self.in_time = [(at_s, known + shift, frame) for at_s, known, frame in self.in_time]

    def add(self, unique_id: int, time_s: float) -> Added:
        """Number a new frame by its neighbours in time."""
        previous, following = self._neighbours(unique_id, time_s)
        epoch = self._epoch(unique_id, time_s, previous, following)
        restarted = epoch is None and previous is not None
        if epoch is None:
            self.epochs.append(Epoch(base=unique_id - (self.highest + 1), lowest=unique_id, highest=unique_id))
            epoch = len(self.epochs) - 1
        gap = self._gap(epoch, unique_id)
        # Where the first frames of a new count, or the last ones of the old, come late, their numbers are given away.
        number = unique_id - self.epochs[epoch].base
        number = self.highest + 1 if number in self.taken else number
        frame = CountedFrame(unique_id=unique_id, time_s=time_s, epoch=epoch, number=number)
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
        return Added(frame=frame, gap=gap, late=late, restarted=restarted)

    def _neighbours(self, unique_id: int, time_s: float) -> tuple[CountedFrame | None, CountedFrame | None]:
        if math.isnan(time_s) or not self.in_time:
            return self.last, None
        place = bisect.bisect(self.in_time, (time_s, unique_id), key=lambda entry: entry[:2])
        previous = self.in_time[place - 1][2] if place else None
        following = self.in_time[place][2] if place < len(self.in_time) else None
        return previous, following

    def _epoch(
        self, unique_id: int, time_s: float, previous: CountedFrame | None, following: CountedFrame | None
    ) -> int | None:
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

    def around(self, time_s: float) -> tuple[CountedFrame | None, CountedFrame | None]:
        """Return the last frame from before a time, and the first one from after it."""
        before = bisect.bisect_left(self.in_time, time_s, key=lambda entry: entry[0])
        after = bisect.bisect_right(self.in_time, time_s, key=lambda entry: entry[0])
        previous = self.in_time[before - 1][2] if before else None
        return previous, self.in_time[after][2] if after < len(self.in_time) else None

    def taken_between(self, begin_s: float, end_s: float) -> float | None:
        """Return when some frame between two times was taken, if there is one."""
        following = self.around(begin_s)[1]
        return following.time_s if following is not None and following.time_s < end_s else None

    def explain(self, time_s: float) -> None:
        """Miss nothing around a time at which a frame of another kind was taken: the detector counts on over both."""
        previous, following = self.around(time_s) if self.missing else (None, None)
        if previous is not None and following is not None and previous.epoch == following.epoch:
            first, last = sorted((previous.unique_id, following.unique_id))
            self.missing.difference_update((previous.epoch, unique_id) for unique_id in range(first, last))

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
