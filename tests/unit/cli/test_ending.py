"""An ending in good order: signals wake and are counted, whatever they strike, and the third forces the end."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

PROGRAM = """
import select, sys
from bluesky_jit.cli.ending import Ending

with Ending() as ending:
    print("ready", flush=True)
    {work}
    print("closing", flush=True)
    sys.stdin.readline()
    print("closed", ending.wanted, flush=True)
print("ended", flush=True)
"""
WORK = {
    "polling": "select.select([ending], [], [])",
    "computing": "while not ending.wanted: pass",
}
SIGNALS = (signal.SIGINT, signal.SIGTERM)
SOON_S = 60.0


@contextmanager
def program(work: str) -> Iterator[subprocess.Popen[str]]:
    """Start a program that ends when its work has heard a signal, and closes when it gets a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(work=WORK[work])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_heard_and_what_closes_is_not_interrupted(work: str, number: int) -> None:
    with program(work) as process:
        process.send_signal(number)
        assert line(process) == "closing"
        process.send_signal(number)
        output, errors = process.communicate("go on\n", timeout=SOON_S)
    assert output.splitlines() == ["closed True", "ended"]
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize("work", WORK)
def test_two_signals_at_once_are_one_wish(work: str) -> None:
    with program(work) as process:
        for number in SIGNALS:
            process.send_signal(number)
        assert line(process) == "closing"
        output, errors = process.communicate("go on\n", timeout=SOON_S)
    assert output.splitlines() == ["closed True", "ended"]
    assert (process.returncode, errors) == (0, "")


def test_the_third_signal_forces_the_end() -> None:
    with program("polling") as process:
        process.send_signal(signal.SIGTERM)
        assert line(process) == "closing"
        # A signal that comes before the one before it is handled counts as one: the other kind never does.
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=SOON_S)
    assert output == ""
    assert process.returncode in (-signal.SIGTERM, -signal.SIGINT)
    assert "ended by force" in errors
