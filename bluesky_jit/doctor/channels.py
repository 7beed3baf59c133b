"""Reads over Channel Access, as the console's own devices make them: pyepics, in the calling thread."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

CONNECT_S = 3.0
"""The console itself gives its devices two (beamline/console.py)."""
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


def read(names: Sequence[str], *, connect_s: float = CONNECT_S) -> dict[str, Reading]:
    """Return what PVs hold; those that do not answer are missing."""
    with _standing_in_for_the_repeater():
        # Before this thread asks, libca must know that it shares the first one's connections.
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
