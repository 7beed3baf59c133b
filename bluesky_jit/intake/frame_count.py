"""The count of one kind of frames in a run: each has a number, and gaps in the detector's ids are known."""

from __future__ import annotations

import bisect
import math
from collections import deque
from dataclasses import dataclass

from bluesky_jit.intake.counted_frame import CountedFrame, Epoch, Taken
from bluesky_jit.intake.gaps import Gaps, Place
from bluesky_jit.intake.settled import Settled

MOST_MISSING = 1000
"""A longer gap in the ids is no loss of frames but a counter that was set anew (or a spoilt id)."""
HORIZON = 2 * MOST_MISSING
"""So many good frames are kept one by one: what waits on its way (`intake.queue_frames`) and any gap are shorter."""
SAME_S = 1e-4
"""A frame's time stamp in two records differs by rounding; two frames of one id are further apart."""
CLOCKS_S = 2.0
"""Where two records stamp frames by different clocks, a frame's times differ by less than this."""


@dataclass(slots=True)
class Added:
    """Say what a new frame has shown: gap: epoch and id of frames that are missing before or after it."""

    frame: CountedFrame
    gap: list[Place]
    late: bool
    restarted: bool


class FrameCount:
    """Keep count of one kind of frames: of the newest, and of those that are not good, one by one."""

    def __init__(self, horizon: int = HORIZON) -> None:
        self.epochs: list[Epoch] = []
        self.gaps = Gaps()
        self.numbered = 0
        """Frames that have a number."""
        self.absent = 0
        """Of a series that is shorter than it was to be."""
        self.unread = 0
        """Announced frames whose ids are not known: their file could not be read."""
        self.spoilt = 0
        """Frames of which there are damaged copies only."""
        self.good = 0
        self.unannounced = 0
        """Good frames that documents have not told of."""
        self.filled = 0
        self.tapped = False
        self.unnumbered = False
        """All frames so far came without the detector's ids, and were given ids in their order."""
        self.clocks_agree = False
        """A frame's time stamps by the tap and in documents were the same."""
        self._horizon = horizon
        self._settled = Settled()
        self._by_id: dict[int, list[CountedFrame]] = {}
        """In order of time."""
        self._in_time: list[Taken] = []
        self._numbers: set[int] = set()
        self._newest: deque[CountedFrame] = deque()
        """Good frames that are to be settled, as they came."""
        self._last: Taken | None = None
        self._highest = -1
        self._spoilt_announced = 0

    @property
    def entries(self) -> int:
        """Return how many entries are kept; memory grows with them."""
        one_by_one = len(self._numbers) + len(self._by_id) + len(self._in_time) + len(self._newest)
        return one_by_one + len(self._settled) + len(self.epochs) + len(self.gaps)

    def find(self, unique_id: int, time_s: float, *, tapped: bool) -> CountedFrame | None:
        """Return the frame of that id and time, if it is known."""
        frames = self._by_id.get(unique_id, [])
        # Nearly always a frame is newer than all others of its id: they need not be looked through.
        frames = frames[-1:] if frames and (math.isnan(time_s) or time_s > frames[-1].time_s) else frames
        frames = [*frames, *self._settled.find(unique_id, time_s, within_s=CLOCKS_S)]
        if not frames:
            return None
        if math.isnan(time_s):
            return max(frames, key=lambda frame: frame.number)
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
        following = None if math.isnan(time_s) else self.around(time_s - SAME_S)[1]
        shift = unique_id - (self._highest + 1 if following is None else following.number)
        for epoch in self.epochs:
            epoch.base, epoch.lowest, epoch.highest = epoch.base + shift, epoch.lowest + shift, epoch.highest + shift
        self.gaps.shift(shift)
        self._settled.shift(shift)
        for frames in self._by_id.values():
            for frame in frames:
                frame.unique_id += shift
        self._by_id = {known + shift: frames for known, frames in self._by_id.items()}
        self._in_time = [taken._replace(unique_id=taken.unique_id + shift) for taken in self._in_time]
        self._last = self._last and self._last._replace(unique_id=self._last.unique_id + shift)

    def add(self, unique_id: int, time_s: float) -> Added:
        """Number a new frame by its neighbours in time."""
        previous, following = self._neighbours(unique_id, time_s)
        epoch = self._epoch(unique_id, time_s, previous, following)
        restarted = epoch is None and previous is not None
        if epoch is None:
            self.epochs.append(Epoch(base=unique_id - (self._highest + 1), lowest=unique_id, highest=unique_id))
            epoch = len(self.epochs) - 1
        gap = self._gap(epoch, unique_id)
        # Where the first frames of a new count, or the last ones of the old, come late, their numbers are given away.
        number = unique_id - self.epochs[epoch].base
        number = self._highest + 1 if number in self._numbers or number in self._settled else number
        frame = CountedFrame(unique_id=unique_id, time_s=time_s, epoch=epoch, number=number)
        late = following is not None or (math.isnan(time_s) and number < self._highest)
        same = self._by_id.setdefault(unique_id, [])
        place = len(same)
        while place and same[place - 1].time_s > time_s:
            place -= 1
        same.insert(place, frame)
        self._numbers.add(number)
        self.numbered += 1
        self._highest = max(self._highest, number)
        self._last = frame.taken
        self.spoilt += 1
        if not math.isnan(time_s):
            bisect.insort(self._in_time, self._last)
        return Added(frame=frame, gap=gap, late=late, restarted=restarted)

    def take(self, frame: CountedFrame, *, tapped: bool, good: bool) -> bool:
        """Note where a frame came from; return whether it is new and good."""
        is_new = good and not frame.good
        if is_new:
            frame.good = frame.filled = True
            self.spoilt -= 1
            self._spoilt_announced -= frame.by_documents
            self.good += 1
            self.unannounced += not frame.by_documents
            self.filled += 1
            self._newest.append(frame)
        if tapped:
            self.tapped = True
            frame.by_tap = True
            self.filled -= good and frame.filled
            frame.filled &= not good
            return is_new
        self.gaps.announce((frame.epoch, frame.unique_id))
        if not frame.by_documents:
            self.unannounced -= frame.good
            self._spoilt_announced += not frame.good
            frame.by_documents = True
        return is_new

    def settle(self, frame: CountedFrame) -> None:
        """Keep what has become of a frame, and the oldest of those kept one by one in less room."""
        if frame.settled:
            self._settled.change(frame)
        while len(self._newest) > self._horizon:
            oldest = self._newest.popleft()
            oldest.settled = self._settled.add(oldest)
            if oldest.settled:
                self._forget(oldest)

    def _forget(self, frame: CountedFrame) -> None:
        """Keep a frame one by one no more."""
        self._numbers.remove(frame.number)
        same = self._by_id[frame.unique_id]
        same.remove(frame)
        if not same:
            del self._by_id[frame.unique_id]
        if not math.isnan(frame.time_s):
            del self._in_time[bisect.bisect_left(self._in_time, frame.taken)]

    def _neighbours(self, unique_id: int, time_s: float) -> tuple[Taken | None, Taken | None]:
        if not math.isnan(time_s):
            place = bisect.bisect(self._in_time, (time_s, unique_id, math.inf))
            neighbours = self._nearest(place, place, time_s)
            if neighbours != (None, None):
                return neighbours
        return self._last, None

    def _epoch(self, unique_id: int, time_s: float, previous: Taken | None, following: Taken | None) -> int | None:
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

    def _gap(self, index: int, unique_id: int) -> list[Place]:
        """Widen an epoch to an id; return what is missing in between."""
        epoch = self.epochs[index]
        if epoch.lowest <= unique_id <= epoch.highest:
            self.gaps.close(index, unique_id, unique_id + 1)
            return []
        upwards = unique_id > epoch.highest
        beyond = range(epoch.highest + 1, unique_id) if upwards else range(unique_id + 1, epoch.lowest)
        gap = [(index, missing) for missing in beyond]
        self.gaps.open(gap)
        epoch.lowest, epoch.highest = min(epoch.lowest, unique_id), max(epoch.highest, unique_id)
        return gap

    def around(self, time_s: float) -> tuple[Taken | None, Taken | None]:
        """Return the last frame from before a time, and the first one from after it."""
        before = bisect.bisect_left(self._in_time, (time_s,))
        return self._nearest(before, bisect.bisect(self._in_time, (time_s, math.inf), before), time_s)

    def _nearest(self, before: int, after: int, time_s: float) -> tuple[Taken | None, Taken | None]:
        """Return the frames next to a time, between two places among those that are not settled."""
        previous, following = self._settled.around(time_s)
        if before and (previous is None or self._in_time[before - 1] > previous):
            previous = self._in_time[before - 1]
        if after < len(self._in_time) and (following is None or self._in_time[after] < following):
            following = self._in_time[after]
        return previous, following

    def taken_between(self, begin_s: float, end_s: float) -> float | None:
        """Return when some frame between two times was taken, if there is one."""
        following = self.around(begin_s)[1]
        return following.time_s if following is not None and following.time_s < end_s else None

    def explain(self, time_s: float) -> None:
        """Miss nothing around a time at which a frame of another kind was taken: the detector counts on over both."""
        previous, following = self.around(time_s) if self.gaps else (None, None)
        if previous is not None and following is not None and previous.epoch == following.epoch:
            first, last = sorted((previous.unique_id, following.unique_id))
            self.gaps.close(previous.epoch, first, last)

    def lost(self, *, finished: bool) -> int:
        """Count what will not come any more."""
        spoilt = self.spoilt if finished else self._spoilt_announced
        return self.gaps.gone(finished=finished) + spoilt + self.absent + self.unread_lost

    @property
    def not_here(self) -> int:
        return len(self.gaps) + self.spoilt + self.absent + self.unread_lost

    @property
    def unread_lost(self) -> int:
        """Count announced frames that could not be read: those that came by the tap have not been missed."""
        return max(0, self.unread - self.unannounced - (len(self.gaps) if self.tapped else 0))
