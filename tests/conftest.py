"""Keep EPICS on loopback, on ports of this session's own, and start servers for system tests."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import settings

# First of all: it sets what the EPICS libraries read when they are imported.
from servers import LOOPBACK, REPEATER_PORT, Server, Sim, started

# The same examples every time, however busy the machine is.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

# A shell that runs the tests in the background has Ctrl-C ignored by them and by all that they start; users have not.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish() -> None:
    """End what a test that failed has left running."""
    for server in started:
        server.stop()


_numbers = itertools.count()


@pytest.fixture(scope="session")
def ca_repeater() -> Iterator[None]:
    """Stand in for the repeater that EPICS clients would start, and that would outlive the tests."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as repeater:
        repeater.bind((LOOPBACK, REPEATER_PORT))
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
