"""Angles of a stage that is monitored while frames are taken: its samples, and the frames that wait for more."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bluesky_jit.messages import AngleTrack, FrameMessage, InlineFrames


class MonitoredAngle:
    """Collect the samples of one stage, which may come out of order."""

    def __init__(self, key: str, scale: float, delay_s: float) -> None:
        """Begin without samples; scale: radians in one of their units; delay_s: as AngleTrack has it."""
        self.key = key
        self._scale = scale
        self._delay_s = delay_s
        self._times = array("d")
        self._angles = array("d")
        self._track: AngleTrack | None = None
        self.latest_s = float("-inf")

    def add(self, time_s: float, angle: float) -> None:
        """Take one sample, as it was recorded."""
        at = bisect_left(self._times, time_s)
        if at < len(self._times) and self._times[at] == time_s:
            self._angles[at] = angle * self._scale
        else:
            self._times.insert(at, time_s)
            self._angles.insert(at, angle * self._scale)
        self.latest_s = max(self.latest_s, time_s)
        self._track = None

    def reaches(self, time_s: float) -> bool:
        """Tell whether a frame of that time lies before the last sample."""
        return self.latest_s >= time_s + self._delay_s

    def track(self) -> AngleTrack:
        """Return the angles known so far."""
        if self._track is None:
            times_s, angles_rad = np.array(self._times), np.array(self._angles)
            self._track = AngleTrack(times_s=times_s, angles_rad=angles_rad, delay_s=self._delay_s)
        return self._track


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """Frames whose angles are known as soon as the stage has a sample later than `until_s`."""

    message: FrameMessage
    until_s: float
    monitor: MonitoredAngle | None


class FramesInOrder:
    """Hand frames on in the order in which they were taken; those of a monitored stage wait until it has moved on."""

    def __init__(self, submit: Callable[[FrameMessage], None], most: int) -> None:
        """Hold nothing; most: frames inside events that may wait, after which the oldest go on as they are."""
        self._submit = submit
        self._most = most
        self._waiting: deque[_Waiting] = deque()
        self._inline = 0
        """Frames inside events among them."""

    def put(self, message: FrameMessage, *, until_s: float = 0.0, monitor: MonitoredAngle | None = None) -> None:
        """Take frames; those with a monitor get their angles from it when they go on."""
        self._waiting.append(_Waiting(message=message, until_s=until_s, monitor=monitor))
        self._inline += _inline_frames(message)
        self.release()

    def release(self, *, everything: bool = False) -> None:
        """Hand on what needs to wait no longer."""
        while self._waiting:
            held = self._waiting[0]
            waits = held.monitor is not None and not held.monitor.reaches(held.until_s)
            if waits and not everything and self._inline <= self._most:
                return
            self._waiting.popleft()
            self._inline -= _inline_frames(held.message)
            self._submit(held.message if held.monitor is None else _with_track(held.message, held.monitor.track()))


def _with_track(message: FrameMessage, track: AngleTrack) -> FrameMessage:
    """Return frames with the angles of a monitored stage; files are read later, by who knows their times."""
    if isinstance(message, InlineFrames):
        return replace(message, angles_rad=track.at(message.frame_times_s))
    return replace(message, angle_track=track)


def _inline_frames(message: FrameMessage) -> int:
    return len(message.counts) if isinstance(message, InlineFrames) else 0
