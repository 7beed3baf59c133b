"""Child processes: ready or a clear word why not, and none is left behind."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import wait_for

from bluesky_jit.cli.processes import ChildProcess, free_ports, uninterrupted

SOON_S = 30.0

Start = Callable[[str], ChildProcess]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a script as a child process."""
    monkeypatch.chdir(tmp_path)
    children: list[ChildProcess] = []

    def start(script: str) -> ChildProcess:
        (tmp_path / "script.py").write_text(script)
        environment = {"PYTHONPATH": str(tmp_path), "PYTHONUNBUFFERED": "1"}
        children.append(ChildProcess("kiln", ["script"], log=tmp_path / "logs" / "kiln.log", environment=environment))
        return children[-1]

    yield start
    for child in children:
        child.stop()


def test_the_line_that_says_ready_is_returned_and_all_lines_are_logged(start: Start) -> None:
    child = start('print("warming up"); print("ready at 900 degrees"); print("done")')
    assert child.wait_until_ready(SOON_S) == "ready at 900 degrees"
    wait_for(lambda: child.tail() == "warming up\nready at 900 degrees\ndone")


def test_what_ends_before_it_is_ready_is_reported_with_its_last_words(start: Start) -> None:
    child = start('import sys; print("cold"); sys.exit("no fuel")')
    with pytest.raises(RuntimeError, match=r"(?s)kiln ended before it was ready: see .*kiln\.log\ncold\nno fuel"):
        child.wait_until_ready(SOON_S)
    assert not child.running
    assert child.tail(1) == "no fuel"


def test_what_talks_but_is_never_ready_is_given_up(start: Start) -> None:
    child = start('import time\nwhile True:\n    print("nearly"); time.sleep(0.01)')
    with pytest.raises(TimeoutError, match=r"kiln was not ready within 0\.5 s: see "):
        child.wait_until_ready(0.5)


def test_it_ends_when_asked_to(start: Start) -> None:
    child = start("""
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit("turned off"))
print("ready")
signal.pause()
""")
    child.wait_until_ready(SOON_S)
    assert child.running
    child.stop()
    assert not child.running
    assert child.tail() == "ready\nturned off"


def test_it_is_killed_when_it_does_not_listen(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bluesky_jit.cli.processes.STOP_S", 0.2)
    child = start("""
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True: time.sleep(1)
""")
    child.wait_until_ready(SOON_S)
    child.stop()
    assert not child.running


def test_the_users_epics_network_is_not_handed_on(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPICS_CAS_INTF_ADDR_LIST", "10.0.0.1")
    child = start('import os; print("ready", sorted(n for n in os.environ if n.startswith("EPICS_")))')
    assert child.wait_until_ready(SOON_S) == "ready []"


def test_ctrl_c_is_put_off_and_not_forgotten() -> None:
    done = []

    def interrupted_twice() -> None:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            done.append("all")

    with pytest.raises(KeyboardInterrupt):
        interrupted_twice()
    assert done == ["all"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_free_ports_are_free_and_differ() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as held:
                held.bind(("127.0.0.1", port))


def test_a_child_of_its_own_group_does_not_hear_our_ctrl_c(start: Start) -> None:
    child = start('import os; print("ready", os.getpgid(0) == os.getpid()); import signal; signal.pause()')
    assert child.wait_until_ready(SOON_S) == "ready True"
    child.kill()
    wait_for(lambda: not child.running)
