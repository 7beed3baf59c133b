"""Reads over Channel Access, as the console's own devices make them: pyepics, in the calling thread."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bluesky_jit.settings import Settings

CAMERA = ("cam1:Acquire", "cam1:ArraySizeX_RBV", "cam1:ArraySizeY_RBV", "cam1:DataType_RBV")
FILES = ("HDF1:FilePath_RBV", "HDF1:SWMRMode_RBV", "HDF1:TimeStamp_RBV")
SESSION = ("ServerRunning", "ReconStatus", "RunUid", "Message")
CONNECT_S = 4.0
"""Twice what the console gives its devices (beamline/console.py), for other checks load their libraries meanwhile."""
READ_S = 2.0
POLL_S = 0.01
REPEATER_PORT = 5065
"""EPICS' own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Hold a PV's value, as text and as it is, and when its server says that it came about (Unix time)."""

    text: str
    value: Any
    time_s: float


def pv_names(settings: Settings) -> list[str]:
    """Return the PVs that are looked at."""
    names = settings.beamline
    devices = [names.camera + part for part in CAMERA + FILES] + [names.stage, names.shutter, names.sample]
    session = [settings.epics.prefix + name for name in SESSION] if settings.epics.enabled else []
    return [name for name in devices + session if name]


class Channels:
    """Read PVs once, for all checks that want to know: libca crashes when two threads begin to use it at once."""

    def __init__(self, settings: Settings) -> None:
        self._names = pv_names(settings)
        self._lock = threading.Lock()
        self._found: dict[str, Reading] | None = None

    def read(self) -> dict[str, Reading]:
        """Return what the PVs hold; those that do not answer are missing."""
        with self._lock:
            if self._found is None:
                self._found = _read_all(self._names)
        return self._found


def _read_all(names: Sequence[str], connect_s: float = CONNECT_S) -> dict[str, Reading]:
    with _standing_in_for_the_repeater():
        from epics import PV, ca

        ca.use_initial_context()
        channels = {name: PV(name, form="time", auto_monitor=False, connection_timeout=connect_s) for name in names}
        try:
            until = time.monotonic() + connect_s
            while time.monotonic() < until and not all(channel.connected for channel in channels.values()):
                ca.poll(evt=POLL_S)
            found = {name: _read(channel) for name, channel in channels.items() if channel.connected}
            return {name: reading for name, reading in found.items() if reading is not None}
        finally:
            for channel in channels.values():
                channel.disconnect()


def _read(channel: Any) -> Reading | None:
    found = channel.get_with_metadata(timeout=READ_S)
    if found is None or found["value"] is None:
        return None
    return Reading(
        text=str(channel.get(as_string=True, timeout=READ_S)), value=found["value"], time_s=found["timestamp"]
    )


@contextlib.contextmanager
def _standing_in_for_the_repeater() -> Iterator[None]:
    """Hold the port of the CA repeater, if it is free: libca would otherwise start one, which outlives us."""
    port = int(os.environ.get("EPICS_CA_REPEATER_PORT", REPEATER_PORT))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        # Taken: there is one.
        with contextlib.suppress(OSError):
            holder.bind(("", port))
        yield
