"""Keep EPICS on loopback, on ports of this session's own, and start servers for system tests."""

from __future__ import annotations

import itertools
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from bluesky_jit.cli.processes import free_ports

# The same examples every time, however busy the machine is.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

# A shell that runs the tests in the background has Ctrl-C ignored by them and by all that they start; users have not.
signal.signal(signal.SIGINT, signal.default_int_handler)

LOOPBACK = "127.0.0.1"
START_S = 60.0

_CA, _JIT_CA, _REPEATER, _PVA, _PVA_BROADCAST = free_ports(5)

# The EPICS libraries read these when they are imported, so they are set before any test module is.
os.environ.update(
    {
        # The simulated beamline serves on the first port, what a test publishes itself on the second.
        "EPICS_CA_ADDR_LIST": f"{LOOPBACK}:{_CA} {LOOPBACK}:{_JIT_CA}",
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_SERVER_PORT": str(_CA),
        "EPICS_CA_REPEATER_PORT": str(_REPEATER),
        "EPICS_CA_MAX_ARRAY_BYTES": "20000000",
        "EPICS_CAS_SERVER_PORT": str(_CA),
        "EPICS_CAS_BEACON_PORT": str(_REPEATER),
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


_servers: list[Server] = []


def pytest_sessionfinish() -> None:
    """End what a test that failed has left running."""
    for server in _servers:
        server.stop()


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
        _servers.append(self)
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


_numbers = itertools.count()


@dataclass(frozen=True)
class Sim:
    """A running simulated beamline."""

    server: Server
    prefix: str
    directory: Path


@pytest.fixture(scope="session")
def ca_repeater() -> Iterator[None]:
    """Stand in for the repeater that EPICS clients would start, and that would outlive the tests."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as repeater:
        repeater.bind((LOOPBACK, _REPEATER))
        repeater.settimeout(0.2)
        ended = threading.Event()

        def answer() -> None:
            register, confirm = 24, 17
            while not ended.is_set():
                try:
                    message, client = repeater.recvfrom(1024)
                except TimeoutError:
                    continue
                if int.from_bytes(message[:2], "big") == register:
                    repeater.sendto(confirm.to_bytes(2, "big") + bytes(10) + socket.inet_aton(LOOPBACK), client)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield
        ended.set()
        thread.join()


@pytest.fixture(scope="module")
def sim(ca_repeater: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sim]:
    """The simulated beamline, small, as a process of its own; one for all tests of a module."""
    directory = tmp_path_factory.mktemp("sim")
    # Each module has names of its own: a client that an earlier module left behind must not find this beamline.
    prefix = f"T{os.getpid()}M{next(_numbers)}:"
    server = Server(
        "sim_devices.ioc", "--prefix", prefix, "--rows", "32", "--columns", "40", "--directory", str(directory)
    )
    server.wait_ready()
    yield Sim(server=server, prefix=prefix, directory=directory)
    server.stop()
