"""Angles of a stage that is monitored while frames are taken: its samples, and the frames that wait for more."""

from __future__ import annotations

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
        self._samples: dict[float, float] = {}
        self._track: AngleTrack | None = None
        self.latest_s = float("-inf")

    def add(self, time_s: float, angle: float) -> None:
        """Take one sample, as it was recorded."""
        self._samples[time_s] = angle * self._scale
        self.latest_s = max(self.latest_s, time_s)
        self._track = None

    def reaches(self, time_s: float) -> bool:
        """Tell whether a frame of that time lies before the last sample."""
        return self.latest_s >= time_s + self._delay_s

    def track(self) -> AngleTrack:
        """Return the angles known so far."""
        if self._track is None:
            times = np.array(sorted(self._samples), dtype=np.float64)
            angles = np.array([self._samples[time] for time in times.tolist()], dtype=np.float64)
            self._track = AngleTrack(times_s=times, angles_rad=angles, delay_s=self._delay_s)
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

    def put(self, message: FrameMessage, *, until_s: float = 0.0, monitor: MonitoredAngle | None = None) -> None:
        """Take frames; those with a monitor get their angles from it when they go on."""
        self._waiting.append(_Waiting(message=message, until_s=until_s, monitor=monitor))
        self.release()

    def release(self, *, everything: bool = False) -> None:
        """Hand on what needs to wait no longer."""
        inline = sum(len(held.message.counts) for held in self._waiting if isinstance(held.message, InlineFrames))
        while self._waiting:
            held = self._waiting[0]
            waits = held.monitor is not None and not held.monitor.reaches(held.until_s)
            if waits and not everything and inline <= self._most:
                return
            self._waiting.popleft()
            if isinstance(held.message, InlineFrames):
                inline -= len(held.message.counts)
            self._submit(held.message if held.monitor is None else _with_track(held.message, held.monitor.track()))


def _with_track(message: FrameMessage, track: AngleTrack) -> FrameMessage:
    """Return frames with the angles of a monitored stage; files are read later, by who knows their times."""
    if isinstance(message, InlineFrames):
        return replace(message, angles_rad=track.at(message.frame_times_s))
    return replace(message, angle_track=track)
