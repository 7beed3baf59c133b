"""Where the angles of a run's projections come from: the stream itself, a monitored stage, or even steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bluesky_jit.intake.dialects import StreamKeys, asked_angle_key, even_steps_rad, read_monitor
from bluesky_jit.intake.monitors import MonitoredAngle
from bluesky_jit.messages import AngleSource
from bluesky_jit.settings import Settings

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Angles:
    """Give the angles of some frames.

    rad: float64 (n,), or None when a file or the monitor has them; NaN for those that nobody knows.
    """

    source: AngleSource
    rad: np.ndarray | None = None
    monitor: MonitoredAngle | None = None


class RunAngles:
    """Find the angles of one run's projections, by priority."""

    def __init__(self, tomo: Document, start: Document, settings: Settings, tell: Callable[[str], None]) -> None:
        """Begin without samples; tell: takes what people are to know, once a run."""
        self._tomo = tomo
        self._start = start
        self._settings = settings
        self._tell = tell
        self._monitors: dict[str, MonitoredAngle] = {}
        self._others: dict[str, list[str]] = {}

    def watch(self, descriptor: Document) -> None:
        """Take note of a stream without frames: the stage may be monitored in it."""
        self._others[str(descriptor.get("name"))] = sorted(descriptor["data_keys"])
        found = read_monitor(descriptor, self._tomo, self._start, self._settings.intake)
        if found is not None:
            key, scale = found
            known = (monitor for monitor in self._monitors.values() if monitor.key == key)
            self._monitors[descriptor["uid"]] = next(
                known, MonitoredAngle(key, scale, self._settings.intake.monitor_delay_s)
            )

    def sample(self, event: Document) -> bool:
        """Take a sample of a monitored stage; return whether the event was one."""
        monitor = self._monitors.get(event["descriptor"])
        if monitor is None or monitor.key not in event["data"]:
            return False
        # The stage's own time stamp, rather than that of whoever passed it on.
        time_s = event.get("timestamps", {}).get(monitor.key, event["time"])
        monitor.add(float(time_s), float(event["data"][monitor.key]))
        return True

    def unknown(self, n: int) -> Angles:
        """Return n angles that nobody knows."""
        return Angles(source="same stream", rad=np.full(n, np.nan))

    def of_frames(
        self, keys: StreamKeys, row: int, n: int, *, recorded: bool, times_known: bool, sweep: int | None = None
    ) -> Angles:
        """Return the angles of n frames from number `row` of their stream on.

        recorded: whether the stream has an angle for each of them; times_known: whether each has its time stamp; sweep:
        how many the stage takes in one go, if known.
        """
        if keys.kind != "projection":
            return Angles(source=keys.angle_source)
        if recorded:
            return Angles(source="same stream")
        monitor = next(iter(self._monitors.values()), None)
        if monitor is not None and times_known:
            return Angles(source="monitored stream", monitor=monitor)
        if monitor is not None:
            self._tell(
                f"stage {monitor.key!r} is monitored, but the frames have no time stamps (a data key that ends in "
                "frame_time, timestamp or _time): even steps are used instead, if the scan made any"
            )
        else:
            self._tell_what_is_missing(keys)
        return self._even_steps(row, n, sweep)

    def of_event(
        self, keys: StreamKeys, row: int, n: int, event: Document, *, times_known: bool, filed: bool = False
    ) -> Angles:
        """Return the angles of an event's n frames; filed: a file that the event names has one for each."""
        if keys.kind != "projection" or filed:
            return self.of_frames(keys, row, n, recorded=filed, times_known=times_known)
        value = event["data"].get(keys.angle)
        if isinstance(value, str):
            self._tell(f"the angle {keys.angle!r} is in a file and the frames are in events: they are left out")
            return self.unknown(n)
        if value is None:
            return self.of_frames(keys, row, n, recorded=False, times_known=times_known, sweep=_sweep(n))
        rad = np.atleast_1d(np.asarray(value, dtype=np.float64)).ravel() * keys.angle_scale
        if len(rad) == n:
            return Angles(source="same stream", rad=rad)
        if len(rad) > 1:
            self._tell(
                f"an event of stream {keys.stream!r} holds {n} frames and {len(rad)} angles ({keys.angle!r}): nobody "
                "can tell which belong together, so such frames are left out"
            )
            return self.unknown(n)
        # Where the stage was when the event was made, and not where it was at each frame, if it turned meanwhile.
        if self._monitors and times_known:
            return self.of_frames(keys, row, n, recorded=False, times_known=times_known)
        if self._tomo.get("arc_deg") is not None and not self._tomo.get("n_projections"):
            self._tell(
                f"stage {keys.angle!r} turned while {n} frames were taken, and was not monitored: even steps over "
                f"{float(self._tomo['arc_deg']):g}° are taken from the plan"
            )
            return self._even_steps(row, n, n)
        return Angles(source="same stream", rad=np.full(n, rad[0]))

    def _even_steps(self, row: int, n: int, sweep: int | None) -> Angles:
        try:
            rad = even_steps_rad(self._tomo, self._settings.tomo.angles_per_turn, row, n, sweep=sweep)
        except ValueError as error:
            self._tell(str(error))
            rad = np.full(n, np.nan)
        return Angles(source="plan arguments", rad=rad)

    def _tell_what_is_missing(self, keys: StreamKeys) -> None:
        asked = asked_angle_key(self._tomo, self._settings.intake)
        if not asked:
            return
        elsewhere = "; ".join(f"{name!r}: {', '.join(data)}" for name, data in sorted(self._others.items()))
        self._tell(
            f"angle key {asked!r} is not in stream {keys.stream!r}, which has {', '.join(keys.names)}, nor in a "
            f"monitored one ({elsewhere or 'there is none'}): correct tomo.angle_key or intake.angle_key; even steps "
            "are used instead, if the scan made any"
        )


def _sweep(n: int) -> int | None:
    return n if n > 1 else None
