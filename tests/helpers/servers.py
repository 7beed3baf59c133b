"""EPICS on loopback, on ports of this test session's own, and processes that are servers until they are stopped."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bluesky_jit.cli.processes import free_ports

LOOPBACK = "127.0.0.1"
START_S = 60.0

_CA, _JIT_CA, REPEATER_PORT, _PVA, _PVA_BROADCAST = free_ports(5)

# The EPICS libraries read these when they are imported, so they are set before any test module is.
os.environ.update(
    {
        # The simulated beamline serves on the first port, what a test publishes itself on the second.
        "EPICS_CA_ADDR_LIST": f"{LOOPBACK}:{_CA} {LOOPBACK}:{_JIT_CA}",
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_SERVER_PORT": str(_CA),
        "EPICS_CA_REPEATER_PORT": str(REPEATER_PORT),
        "EPICS_CA_MAX_ARRAY_BYTES": "20000000",
        "EPICS_CAS_SERVER_PORT": str(_CA),
        "EPICS_CAS_BEACON_PORT": str(REPEATER_PORT),
        "EPICS_CAS_INTF_ADDR_LIST": LOOPBACK,
        "EPICS_CAS_BEACON_ADDR_LIST": LOOPBACK,
        "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_PVA_ADDR_LIST": LOOPBACK,
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        "EPICS_PVA_BROADCAST_PORT": str(_PVA_BROADCAST),
        "EPICS_PVA_SERVER_PORT": str(_PVA),
        "EPICS_PVAS_SERVER_PORT": str(_PVA),
        "EPICS_PVAS_BROADCAST_PORT": str(_PVA_BROADCAST),
        "EPICS_PVAS_INTF_ADDR_LIST": LOOPBACK,
        "EPICS_PVAS_BEACON_ADDR_LIST": LOOPBACK,
        "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        "OPHYD_CONTROL_LAYER": "pyepics",
    }
)
JIT_CA_PORT = _JIT_CA


def wait_for(condition: Callable[[], object], *, timeout_s: float = 60.0, what: str = "the condition") -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come true within {timeout_s} s")
        time.sleep(0.01)


started: list[Server] = []
"""Those that a test has started; the test session ends what a test that failed has left running."""


class Server:
    """Run `python -m module arguments…` until it says it is ready; its output is kept for messages."""

    def __init__(self, module: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | (environment or {}),
        )
        started.append(self)
        self.output: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_ready(self, timeout_s: float = START_S) -> str:
        """Return the line that says "ready"."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                line = None
            if line is None:
                self.stop()
                raise RuntimeError("the server did not become ready:\n" + "".join(self.output))
            if line.startswith("ready"):
                return line.strip()

    def stop(self, timeout_s: float = 15.0) -> int:
        """End the process politely, then firmly; return its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
        status = self.process.wait()
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            self._lines.put(line)
        self._lines.put(None)


@dataclass(frozen=True)
class Sim:
    """A running simulated beamline."""

    server: Server
    prefix: str
    directory: Path
