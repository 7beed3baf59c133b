"""The messages about one run's frames that wait to be read: a queue a kind, so that none waits for another's file."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from bluesky_jit.intake.frames import split_message
from bluesky_jit.messages import AssetFrames, FrameKind, FrameMessage
from bluesky_jit.session.couplings import Refused

Waiting = FrameMessage | Refused

FRAMES_AT_ONCE = 32
"""Frames read at a time: a long sweep never fills the memory, nor does it keep other runs waiting."""


@dataclass(slots=True, kw_only=True)
class _Entry:
    """A message, when it came and as which one of the run; after: as a ProjectionBlock's."""

    message: Waiting
    came_s: float
    place: int
    after: int | None = None


class FrameQueue:
    """Hold messages about frames of one kind, in order: frames without numbers are counted as they are read."""

    def __init__(self) -> None:
        self._entries: deque[_Entry] = deque()
        """Those that nobody has begun to read."""
        self._parts: deque[Waiting] = deque()
        """What is left of the one that was begun."""
        self._begun: _Entry | None = None
        self.blocked = False
        """The next frames are not in their file yet."""
        self._ready_s = 0.0
        """When that was last so."""
        self.moved_s = time.monotonic()
        """When the last frames were read, or the first came."""
        self.told = False
        """People know that since then none could be read."""

    def __bool__(self) -> bool:
        return bool(self._parts or self._entries)

    def __iter__(self) -> Iterator[_Entry]:
        if self._parts and self._begun:
            yield self._begun
        yield from self._entries

    @property
    def place(self) -> float:
        """Return which of the run's messages is the next; infinite without any."""
        return next((entry.place for entry in self), math.inf)

    @property
    def lag_s(self) -> float:
        """Return for how long frames have waited that nobody has begun to read and that could be read."""
        if self.blocked or not self._entries:
            return 0.0
        return time.monotonic() - max(self._entries[0].came_s, self._ready_s)

    def add(self, message: Waiting, place: int) -> None:
        """Append the run's message number `place`."""
        if not self:
            self.move()
        self._entries.append(_Entry(message=message, came_s=time.monotonic(), place=place))

    def take(self) -> tuple[Waiting, int | None]:
        """Return the next frames, as many as are read at once, and what they were taken after."""
        begun = self._begun
        if begun is None or not self._parts:
            begun = self._begun = self._entries.popleft()
            message = begun.message
            self._parts.extend([message] if isinstance(message, Refused) else split_message(message, FRAMES_AT_ONCE))
        return self._parts.popleft(), begun.after

    def put_back(self, part: Waiting) -> None:
        """Keep frames that were taken, and that their file does not hold yet."""
        self._parts.appendleft(part)
        self.blocked, self._ready_s = True, time.monotonic()

    def move(self) -> None:
        """Take note that frames were read, or will be anew."""
        self.moved_s, self.blocked, self.told = time.monotonic(), False, False


class FrameQueues:
    """Say whose turn it is: the tap's frames are first, and then the oldest message that is not in the way of others.

    Projections pass darks and flats whose file is not there yet. Darks and flats never pass projections: how many had
    been taken before them says which projections they are for.
    """

    def __init__(self) -> None:
        self._tapped = FrameQueue()
        self._darks, self._flats, self._projections = FrameQueue(), FrameQueue(), FrameQueue()
        self._kinds: dict[FrameKind, FrameQueue] = {
            "dark": self._darks,
            "flat": self._flats,
            "projection": self._projections,
        }
        self._places = 0

    def __bool__(self) -> bool:
        return any(self._all)

    @property
    def _all(self) -> tuple[FrameQueue, ...]:
        return (self._tapped, *self._kinds.values())

    @property
    def has_work(self) -> bool:
        """Tell whether there are frames that do not wait for their file, or for others that do."""
        return self.next([queue for queue in self._all if queue.blocked]) is not None

    @property
    def lag_s(self) -> float:
        """Return for how long the oldest frames have waited that nobody has begun to read and that could be read."""
        limit = self._projections.place
        return max(queue.lag_s for queue in self._all if queue is self._tapped or queue.place <= limit)

    def bring(self, kind: FrameKind) -> bool:
        """Tell whether frames of a kind wait to be read."""
        return bool(self._kinds[kind]) or any(entry.message.kind == kind for entry in self._tapped)

    def of(self, message: Waiting) -> FrameQueue:
        """Return the queue of a message; what the tap brings need not be read from a file."""
        is_tapped = not isinstance(message, AssetFrames) and message.tapped
        return self._tapped if is_tapped else self._kinds[message.kind]

    def add(self, message: Waiting) -> None:
        """Append a message."""
        self._places += 1
        self.of(message).add(message, self._places)

    def next(self, besides: Collection[FrameQueue] = ()) -> FrameQueue | None:
        """Return the queue whose turn it is, if there is any besides some."""
        if self._tapped:
            return self._tapped
        waiting = [queue for queue in self._kinds.values() if queue and queue not in besides]
        first = min(waiting, key=lambda queue: queue.place, default=None)
        return first if first is not None and first.place <= self._projections.place else None

    def take(self, queue: FrameQueue, projections: int) -> tuple[Waiting, int | None]:
        """Take the next frames of a queue, and what they were taken after; projections: how many have been taken."""
        if queue is self._projections:
            for entry in self._flats:
                if entry.place > queue.place:
                    break
                if entry.after is None:
                    # From now on the projections that have come are no longer those from before these flats.
                    entry.after = projections
        return queue.take()

    def clear(self) -> Iterator[Waiting]:
        """Take all that waits, without reading it."""
        for queue in self._all:
            while queue:
                yield queue.take()[0]
