"""A simulated beamline, a session and a console in processes of their own, which a test may end, stop or starve."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from caproto.sync import client as ca
from servers import wait_for

from bluesky_jit.cli.processes import own_environment
from bluesky_jit.cli.simulated import SimulatedBeamline
from bluesky_jit.cli.watch import Watch

SOON_S = 90.0
"""What is ready in seconds may take long on a busy machine; nothing here measures speed."""
SCAN_S = 180.0
CA_S = 20.0
ANGLES = 30
SHORT = {"turns": 2, "angles_per_turn": ANGLES, "exposure_s": 0.02, "darks": 3, "flats": 3}


class Console:
    """A RunEngine in a process of its own, whose scans are recorded by nobody but the session."""

    def __init__(self, settings_file: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("scan_console.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=own_environment()
            | {"EPICS_CA_REPEATER_PORT": os.environ["EPICS_CA_REPEATER_PORT"], "OPHYD_CONTROL_LAYER": "pyepics"}
            | {"BLUESKY_JIT_SETTINGS": str(settings_file)},
            start_new_session=True,
        )
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_until_ready(self) -> None:
        assert self.answer(SOON_S) == {"missing": ""}

    def start(self, **scan: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(scan) + "\n")
        self._process.stdin.flush()

    def answer(self, timeout_s: float = SCAN_S) -> dict[str, Any]:
        """Return how the scan ended."""
        return self._answers.get(timeout=timeout_s)

    def scan(self, **scan: Any) -> dict[str, Any]:
        self.start(**scan)
        return self.answer()

    def press_ctrl_c(self) -> dict[str, Any]:
        """Press Ctrl-C until the scan has ended."""
        ended: list[dict[str, Any]] = []

        def pressed() -> bool:
            self._process.send_signal(signal.SIGINT)
            try:
                ended.append(self.answer(0.3))
            except queue.Empty:
                return False
            return True

        wait_for(pressed, timeout_s=SOON_S, what="the end of the scan")
        return ended[0]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(SOON_S)
        finally:
            self._end()

    def kill(self) -> None:
        """End it in mid-scan, if need be."""
        self._end()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                if line.startswith("{"):
                    self._answers.put(json.loads(line))


class Beamline:
    """The simulated beamline, a session and a console, each in processes of their own."""

    def __init__(self, simulated: SimulatedBeamline, console: Console, watch: Watch) -> None:
        self.simulated = simulated
        self.console = console
        self.watch = watch

    def restart(self) -> None:
        """Start again all that a failed test may have left ended, busy or at odds with the others."""
        self.console.kill()
        for name in ("serve", "ioc"):
            if (child := self.simulated.child(name)).running:
                child.kill()
        self.simulated.ioc().wait_until_ready(SOON_S)
        self.simulated.serve().wait_until_ready(SOON_S)
        self.console = Console(self.simulated.settings_file)
        self.console.wait_until_ready()

    def process(self, name: str) -> psutil.Process:
        """Return one of the processes: ioc, tiled or serve."""
        return psutil.Process(self.simulated.child(name)._process.pid)

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """Stop a process, as a debugger or a machine without memory does; then let it go on."""
        process = self.process(name)
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    @contextmanager
    def full_disk(self, name: str) -> Iterator[None]:
        """Let no file of a process grow."""
        process = self.process(name)
        before = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (0, before[1]))
        try:
            yield
        finally:
            process.rlimit(psutil.RLIMIT_FSIZE, before)

    def value(self, name: str) -> Any:
        """Return what the session publishes."""
        return self.watch.values()[name]

    def wait_until(self, name: str, value: Any) -> None:
        wait_for(lambda: self.value(name) == value, timeout_s=SOON_S, what=f"{name} {value!r}")

    def wait_until_finished(self, uid: str) -> str:
        """Wait for the last slices of a run; return the session's message."""
        self.wait_until("RunUid", uid)
        self.wait_until("ReconStatus", "idle")
        return self.value("Message")

    def wait_until_shown(self, uid: str) -> None:
        """Wait for a slice of a run: a PV of its own, which may follow the others a moment later."""
        wait_for(lambda: self.watch.image("XY:Raw")[1].get("RunUid") == uid, timeout_s=SOON_S, what="the slice")

    def start(self, **scan: Any) -> None:
        """Start a scan, and wait for its first turn."""
        before = self.value("RunUid")
        self.console.start(**scan)

        def turning() -> bool:
            values = self.watch.values()
            return values["RunUid"] not in (before, None) and values["Projections"] >= ANGLES

        wait_for(turning, timeout_s=SOON_S, what="the first turn")

    def read(self, name: str) -> Any:
        """Return the value of one of the simulator's PVs."""
        return ca.read(f"SIM:{name}", repeater=False, timeout=CA_S).data[0]

    def write(self, name: str, value: Any) -> None:
        ca.write(f"SIM:{name}", value, notify=True, repeater=False, timeout=CA_S)

    def check_that_the_next_run_works(self) -> None:
        ended = self.console.scan(**SHORT)
        assert (ended["error"], ended["status"]) == ("", "success")
        message = self.wait_until_finished(ended["uid"])
        # The tap may not have found the camera again yet.
        assert message == "" or "are taken from" in message
        assert self.value("Projections") == 2 * ANGLES
        assert self.value("FramesLost") == 0
        self.wait_until_shown(ended["uid"])
