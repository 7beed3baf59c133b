"""Make the camera misbehave on request."""

from __future__ import annotations

import asyncio
import math
import threading
from dataclasses import replace
from typing import Any

import numpy as np
from caproto import ChannelData

from sim_devices.frame import Frame
from sim_devices.pvs import Outbox, PVTable, show

LONGEST_S = 600.0


class Faults:
    """Serve the fault PVs; a number of coming frames counts down to zero as they are hit.

    `Drop`, `Duplicate`, `Reorder` and `Corrupt` are numbers of frames; `Stall` is seconds during which the camera makes
    no frame; `Disconnect` is seconds during which both EPICS servers are gone. `Where` says whether lost and altered
    frames are so for everything behind the camera, or for pvAccess alone (as when a client is late).
    """

    def __init__(self, table: PVTable, *, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._left = {"Drop": 0, "Duplicate": 0, "Reorder": 0, "Corrupt": 0}
        self._held: Frame | None = None
        self._stall_s = 0.0
        self._channels = {name: table.integer(name, on_put=self._counter(name)) for name in self._left}
        self._stall = table.number("Stall", units="s", on_put=self._put_stall)
        self._where = table.choice("Where", "Everywhere", choices=("Everywhere", "PVA"))
        self._disconnect = table.number("Disconnect", units="s", on_put=self._put_disconnect)
        self._disconnect_asked = asyncio.Event()

    @property
    def only_pva(self) -> bool:
        return self._where.value == "PVA"

    async def disconnection(self) -> float:
        """Wait until a disconnection is asked for; return its seconds, and forget it."""
        await self._disconnect_asked.wait()
        self._disconnect_asked.clear()
        seconds = self._disconnect.value
        await show(self._disconnect, 0.0)
        return seconds

    def take_stall(self) -> float:
        """Return the seconds to stall for, and forget them."""
        with self._lock:
            seconds, self._stall_s = self._stall_s, 0.0
        return seconds

    def stall_over(self, outbox: Outbox) -> None:
        outbox.post({self._stall: 0.0})

    def apply(self, frame: Frame, outbox: Outbox) -> list[Frame]:
        """Return what arrives instead of the frame: nothing, it, or several."""
        with self._lock:
            frames = self._frames(frame)
            left = dict(self._left)
        changed: dict[ChannelData, int] = {
            channel: left[name] for name, channel in self._channels.items() if channel.value != left[name]
        }
        if changed:
            outbox.post(changed)
        return frames

    def release(self) -> list[Frame]:
        """Return the frame that still waits for a later one to overtake it."""
        with self._lock:
            held, self._held = self._held, None
        return [held] if held is not None else []

    def _frames(self, frame: Frame) -> list[Frame]:
        if self._spend("Drop"):
            return []
        if self._spend("Corrupt"):
            frame = self._corrupted(frame)
        if self._held is not None:
            held, self._held = self._held, None
            return [frame, held]
        if self._spend("Reorder"):
            self._held = frame
            return []
        return [frame, frame] if self._spend("Duplicate") else [frame]

    def _spend(self, name: str) -> bool:
        if self._left[name] <= 0:
            return False
        self._left[name] -= 1
        return True

    def _corrupted(self, frame: Frame) -> Frame:
        """Replace a band of rows, a third of the frame, by noise of the whole range."""
        counts = frame.counts.copy()
        n_v = counts.shape[0]
        first = int(self._rng.integers(0, max(n_v - n_v // 3, 1)))
        band = counts[first : first + max(n_v // 3, 1)]
        band[:] = self._rng.integers(0, 2**16, band.shape, dtype=np.uint16)
        return replace(frame, counts=counts)

    def _counter(self, name: str) -> Any:
        async def put(frames: int) -> int:
            if frames < 0:
                raise ValueError(f"{name} is {frames}: give a number of frames, or 0 for none")
            with self._lock:
                self._left[name] = int(frames)
            return int(frames)

        return put

    async def _put_stall(self, seconds: float) -> float:
        _check_seconds("Stall", seconds)
        with self._lock:
            self._stall_s = seconds
        return seconds

    async def _put_disconnect(self, seconds: float) -> float:
        _check_seconds("Disconnect", seconds)
        if seconds > 0:
            self._disconnect_asked.set()
        return seconds


def _check_seconds(name: str, seconds: float) -> None:
    if not (math.isfinite(seconds) and 0 <= seconds <= LONGEST_S):
        raise ValueError(f"{name} is {seconds}: give seconds from 0 to {LONGEST_S:g}")
