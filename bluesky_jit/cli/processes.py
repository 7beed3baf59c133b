"""Start the parts that run as processes of their own, wait until they are ready, and end them again."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

STOP_S = 30.0
"""Longer than a session takes to end its stages and to write what it holds to Tiled."""
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


class ChildProcess:
    """Run a Python module as a process; its output goes to a log file, the line that says `ready` to us."""

    def __init__(self, name: str, arguments: Sequence[str], *, log: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._lines: queue.Queue[str | None] = queue.Queue()
        # A process group of its own: Ctrl-C at the terminal reaches us only, and we end the others in order.
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=own_environment() | environment,
            start_new_session=True,
        )
        if self._process.stdout is None:
            raise RuntimeError(f"{name} was started without an output to read")
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self, timeout_s: float) -> str:
        """Return the line that begins with `ready`; raise when the process ends or stays silent."""
        until = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"{self.name} was not ready within {timeout_s:g} s: see {self.log}") from None
            if line is None:
                raise RuntimeError(f"{self.name} ended before it was ready: see {self.log}\n{self.tail()}")
            if line.startswith("ready"):
                return line

    def tail(self, lines: int = 5) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        """Ask the process to end, and kill it when it does not."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._reader.join(STOP_S)

    def kill(self) -> None:
        """End the process as a crash would."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(STOP_S)
        self._reader.join(STOP_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _read(self, output: IO[str]) -> None:
        with self.log.open("a") as log, output:
            for line in output:
                log.write(line)
                log.flush()
                self._lines.put(line.strip())
        # Its output ends a moment before the process does.
        self._process.wait()
        self._lines.put(None)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM for a moment: no process may be started and forgotten, or left half ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


def own_environment() -> dict[str, str]:
    """Return our environment without the user's EPICS network: what we start serves this machine only."""
    return {name: value for name, value in os.environ.items() if not name.startswith("EPICS_")}


def free_ports(count: int) -> list[int]:
    """Return ports on the loopback interface that are free for both TCP and UDP."""
    held: list[socket.socket] = []
    ports: list[int] = []
    try:
        while len(ports) < count:
            tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            held.append(tcp)
            tcp.bind(("127.0.0.1", 0))
            port = int(tcp.getsockname()[1])
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            held.append(udp)
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
    finally:
        for each in held:
            each.close()
    return ports
