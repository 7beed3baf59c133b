"""The frames that came long ago: kept by the stretch, so that a run of any length takes no more memory."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from bluesky_jit.intake.counted_frame import CountedFrame, Taken

PAUSE_S = 1.0
"""After a longer one a stretch begins: the detector may have counted anew. Who takes slower steps takes few of them."""


class Record(NamedTuple):
    """What settled frames share: all that is known of them but number and time. A frame's id: its number plus base."""

    epoch: int
    base: int
    timed: bool
    by_tap: bool
    by_documents: bool
    filled: bool
    damaged: bool
    ahead: int


@dataclass(slots=True)
class Stretch:
    """Frames that were taken one after another: from one number to another, and from one time to another."""

    epoch: int
    base: int
    first: int
    last: int
    begin_s: float
    end_s: float

    def is_followed_by(self, frame: CountedFrame) -> bool:
        pause_s = frame.time_s - self.end_s
        return self._is_along(frame) and frame.number == self.last + 1 and pause_s <= PAUSE_S

    def is_preceded_by(self, frame: CountedFrame) -> bool:
        pause_s = self.begin_s - frame.time_s
        return self._is_along(frame) and frame.number == self.first - 1 and pause_s <= PAUSE_S

    def _is_along(self, frame: CountedFrame) -> bool:
        return (self.epoch, self.base) == (frame.epoch, frame.unique_id - frame.number)

    def taken(self, number: int) -> Taken:
        """Return who a frame is, and when it was taken if they are evenly spaced."""
        part = (number - self.first) / max(self.last - self.first, 1)
        time_s = self.begin_s + part * (self.end_s - self.begin_s)
        return Taken(time_s, number + self.base, self.epoch, number)

    def last_until(self, time_s: float) -> int:
        """Return the number of the last frame until a time before the end, if they are evenly spaced."""
        part = (time_s - self.begin_s) / (self.end_s - self.begin_s)
        return min(self.first + math.floor(part * (self.last - self.first)), self.last - 1)


class Settled:
    """Keep good frames of a count. Their ids and numbers are exact; of their times, when each stretch began and ended.

    Between two frames of a stretch the detector took no other. So a frame that has an id of the stretch, and whose time
    lies within it, is that frame.
    """

    def __init__(self) -> None:
        self._stretches: list[Stretch] = []
        """In order of time; none overlap."""
        self._changes: list[int] = []
        """Numbers from which on frames have another record, or are not here."""
        self._records: list[Record | None] = []
        self._bases: dict[tuple[int, int], None] = {}
        """All epochs and bases that there are."""
        self._untimed = False

    def __len__(self) -> int:
        """Return how many entries are kept."""
        return len(self._stretches) + len(self._changes) + len(self._bases)

    def __contains__(self, number: int) -> bool:
        return self._record(number) is not None

    def add(self, frame: CountedFrame) -> bool:
        """Take a frame, and return true; false for one that lies within a stretch and is none of its frames."""
        if math.isnan(frame.time_s):
            self._untimed = True
        elif not self._stretch(frame):
            return False
        record = _record_of(frame)
        self._bases[record.epoch, record.base] = None
        self._put(frame.number, record)
        return True

    def change(self, frame: CountedFrame) -> None:
        """Take what has become of a settled frame."""
        record = self._record(frame.number)
        if record is not None:
            self._put(frame.number, _record_of(frame)._replace(timed=record.timed))

    def find(self, unique_id: int, time_s: float, *, within_s: float) -> Iterator[CountedFrame]:
        """Yield the frames of an id: all, or those taken at some time, or nearly, with as exact a time as is known."""
        if math.isnan(time_s) or self._untimed:
            for epoch, base in self._bases:
                record = self._record(unique_id - base)
                if record is None or (record.epoch, record.base) != (epoch, base):
                    continue
                if math.isnan(time_s) or not record.timed:
                    yield _frame(unique_id - base, record, math.nan)
        place = 0 if math.isnan(time_s) else self._begun(time_s + within_s)
        while place and self._stretches[place - 1].end_s >= time_s - within_s:
            place -= 1
            stretch = self._stretches[place]
            number = unique_id - stretch.base
            record = self._record(number) if stretch.first <= number <= stretch.last else None
            if record is not None:
                inside = stretch.begin_s <= time_s <= stretch.end_s
                yield _frame(number, record, time_s if inside else stretch.taken(number).time_s)

    def shift(self, by: int) -> None:
        """Follow ids that are counted otherwise."""
        for stretch in self._stretches:
            stretch.base += by
        self._records = [record and record._replace(base=record.base + by) for record in self._records]
        self._bases = {(epoch, base + by): None for epoch, base in self._bases}

    def around(self, time_s: float) -> tuple[Taken | None, Taken | None]:
        """Return the last frame until a time, and the first one from after it."""
        place = self._begun(time_s)
        before = self._stretches[place - 1] if place else None
        after = self._stretches[place] if place < len(self._stretches) else None
        if before is None or time_s >= before.end_s:
            return before and before.taken(before.last), after and after.taken(after.first)
        number = before.last_until(time_s)
        return before.taken(number), before.taken(number + 1)

    def _begun(self, time_s: float) -> int:
        """Return how many stretches begin until a time."""
        return bisect.bisect(self._stretches, time_s, key=attrgetter("begin_s"))

    def _stretch(self, frame: CountedFrame) -> bool:
        """Lengthen the stretches around a frame, or begin one; return false for one that lies within."""
        place = self._begun(frame.time_s)
        before = self._stretches[place - 1] if place else None
        after = self._stretches[place] if place < len(self._stretches) else None
        if before is not None and before.end_s > frame.time_s:
            return False
        precedes = after is not None and after.is_preceded_by(frame)
        if before is not None and before.is_followed_by(frame):
            before.last, before.end_s = frame.number, frame.time_s
            if after is not None and precedes:
                before.last, before.end_s = after.last, after.end_s
                del self._stretches[place]
        elif after is not None and precedes:
            after.first, after.begin_s = frame.number, frame.time_s
        else:
            base = frame.unique_id - frame.number
            alone = Stretch(frame.epoch, base, frame.number, frame.number, frame.time_s, frame.time_s)
            self._stretches.insert(place, alone)
        return True

    def _record(self, number: int) -> Record | None:
        place = bisect.bisect(self._changes, number)
        return self._records[place - 1] if place else None

    def _put(self, number: int, record: Record) -> None:
        """Give one number a record; those around it keep theirs."""
        before, after = self._record(number - 1), self._record(number + 1)
        changes = [(number, record)] if record != before else []
        changes += [(number + 1, after)] if after != record else []
        replaced = slice(bisect.bisect_left(self._changes, number), bisect.bisect(self._changes, number + 1))
        self._changes[replaced] = [at for at, _ in changes]
        self._records[replaced] = [value for _, value in changes]


def _frame(number: int, record: Record, time_s: float) -> CountedFrame:
    return CountedFrame(
        unique_id=number + record.base,
        time_s=time_s,
        epoch=record.epoch,
        number=number,
        good=True,
        by_tap=record.by_tap,
        by_documents=record.by_documents,
        filled=record.filled,
        damaged=record.damaged,
        ahead=record.ahead,
        settled=True,
    )


def _record_of(frame: CountedFrame) -> Record:
    return Record(
        epoch=frame.epoch,
        base=frame.unique_id - frame.number,
        timed=not math.isnan(frame.time_s),
        by_tap=frame.by_tap,
        by_documents=frame.by_documents,
        filled=frame.filled,
        damaged=frame.damaged,
        ahead=frame.ahead,
    )
