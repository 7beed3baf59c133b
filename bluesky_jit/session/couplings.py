"""The two ways in which threads meet: a bounded queue where loss matters, a latest-wins slot where freshness does."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from bluesky_jit.messages import FrameKind, InlineFrames, RunMessage, RunStop, SinkMessage, Update

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Refused:
    """Say which frames did not fit, in the place of their message: the record of what came has them all."""

    run_uid: str
    kind: FrameKind
    numbered: bool
    tapped: bool
    awaits_documents: bool = False
    unique_ids: list[int] = field(default_factory=list)
    frame_times_s: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.unique_ids)

    def takes(self, message: InlineFrames) -> bool:
        """Tell whether a message's frames can be noted here, too."""
        names = ("run_uid", "kind", "numbered", "tapped", "awaits_documents")
        return all(getattr(self, name) == getattr(message, name) for name in names)

    def add(self, message: InlineFrames) -> None:
        self.unique_ids += message.unique_ids.tolist()
        self.frame_times_s += message.frame_times_s.tolist()


class Inbox:
    """Queue the runs' messages in order, without ever blocking the caller.

    References to files are small and always fit. Frames that came inside events are bounded in number, from `put` until
    they are used (`release`): of those that do not fit, `put` says so, and in their place stays which ones they were.
    """

    def __init__(self, most_frames: int) -> None:
        self._most_frames = most_frames
        self._frames = 0
        self._messages: deque[tuple[float, RunMessage | Refused]] = deque()
        self._changed = threading.Condition()
        self._closed = False

    @property
    def empty(self) -> bool:
        return not self._messages

    @property
    def fill(self) -> float:
        """Return what part of the room for frames from events is taken, here or by whoever is to use them."""
        return self._frames / self._most_frames

    @property
    def age_s(self) -> float:
        """Return how long the oldest message has waited."""
        with self._changed:
            return time.monotonic() - self._messages[0][0] if self._messages else 0.0

    def put(self, message: RunMessage) -> bool:
        """Queue a message; return False for frames that do not fit."""
        with self._changed:
            if self._closed:
                # People were told when it was closed.
                return True
            if isinstance(message, InlineFrames):
                if self._frames + len(message.counts) > self._most_frames:
                    self._refuse(message)
                    return False
                self._frames += len(message.counts)
            self._messages.append((time.monotonic(), message))
            self._changed.notify_all()
            return True

    def _refuse(self, message: InlineFrames) -> None:
        """Note which frames did not fit: however many they are, they take no room to speak of."""
        last = self._messages[-1][1] if self._messages else None
        if not (isinstance(last, Refused) and last.takes(message)):
            last = Refused(
                run_uid=message.run_uid,
                kind=message.kind,
                numbered=message.numbered,
                tapped=message.tapped,
                awaits_documents=message.awaits_documents,
            )
            self._messages.append((time.monotonic(), last))
        last.add(message)

    def close(self) -> None:
        """Take nothing more: there is nobody to use it."""
        with self._changed:
            self._closed = True
            self._messages.clear()

    def release(self, message: RunMessage | Refused) -> None:
        """Make room for others: the frames of a message that was taken are used, or given up."""
        if isinstance(message, InlineFrames):
            with self._changed:
                self._frames -= len(message.counts)

    def take(self, timeout_s: float) -> RunMessage | Refused | None:
        """Return the oldest message, or None when none comes in time."""
        with self._changed:
            if not self._messages:
                self._changed.wait(timeout_s)
            return self._messages.popleft()[1] if self._messages else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Say how many frames wait to be used, and for how long the oldest that could be used has waited."""

    frames: int = 0
    lag_s: float = 0.0


class Latest(Generic[T]):
    """Hold the newest value; an older one that nobody took is forgotten."""

    def __init__(self) -> None:
        self._value: T | None = None
        self._changed = threading.Condition()

    def put(self, value: T) -> None:
        with self._changed:
            self._value = value
            self._changed.notify_all()

    def take(self, timeout_s: float = 0.0) -> T | None:
        """Return the newest value not yet taken, or None when none comes in time."""
        with self._changed:
            if self._value is None and timeout_s > 0:
                self._changed.wait(timeout_s)
            value, self._value = self._value, None
            return value


class Outbox:
    """Hold what is to be published: events in order, and of every image the newest update only."""

    def __init__(self) -> None:
        self._events: deque[SinkMessage] = deque()
        self._updates: dict[tuple[str, str, str], Update] = {}
        self._changed = threading.Condition()

    def put(self, message: SinkMessage) -> None:
        with self._changed:
            if isinstance(message, Update):
                self._updates[message.run_uid, message.slice_name, message.kind] = message
            else:
                self._events.append(message)
            self._changed.notify_all()

    def take(self, timeout_s: float) -> list[SinkMessage]:
        """Return all that waits, a run's last updates before its stop."""
        with self._changed:
            if not self._events and not self._updates:
                self._changed.wait(timeout_s)
            messages: list[SinkMessage] = []
            while self._events:
                event = self._events.popleft()
                if isinstance(event, RunStop):
                    messages.extend(self._pop_updates(event.run_uid))
                messages.append(event)
            messages.extend(self._pop_updates(None))
            return messages

    def _pop_updates(self, run_uid: str | None) -> list[Update]:
        keys = [key for key in self._updates if run_uid is None or key[0] == run_uid]
        return [self._updates.pop(key) for key in keys]
