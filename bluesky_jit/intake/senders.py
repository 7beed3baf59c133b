"""Processes that send documents from this machine: one that dies in the middle of a run cannot end it any more."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PIDS = Path("/proc/self/ns/pid")


def own_name() -> bytes:
    """Return what tells this process from all others, b"" where that is not known; documents are sent with it."""
    place = _place()
    return f"{place}/{os.getpid()}".encode() if place else b""


class Senders:
    """Watch the senders of open runs: a file descriptor for each is readable when the process has ended."""

    def __init__(self) -> None:
        self._place = _place()
        self._descriptors: dict[bytes, int] = {}
        self._runs: dict[str, bytes] = {}

    def hear(self, sender: bytes, name: str, document: dict[str, Any]) -> int | None:
        """Take notice of a document; return a file descriptor to watch from now on, if there is a new one."""
        if name == "stop":
            self._runs.pop(str(document.get("run_start")), None)
        if name != "start" or (pid := self._pid(sender)) is None:
            return None
        descriptor = None
        if sender not in self._descriptors:
            try:
                descriptor = self._descriptors[sender] = os.pidfd_open(pid)
            except (OSError, OverflowError):
                return None
        self._runs[str(document.get("uid"))] = sender
        return descriptor

    def ended(self, descriptor: int) -> list[dict[str, Any]] | None:
        """Return the stop documents that a process which has ended owes; None for no such descriptor."""
        sender = next((name for name, each in self._descriptors.items() if each == descriptor), None)
        if sender is None:
            return None
        os.close(self._descriptors.pop(sender))
        runs = [uid for uid, each in self._runs.items() if each == sender]
        self._runs = {uid: each for uid, each in self._runs.items() if each != sender}
        return [_stop(uid) for uid in runs]

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def _pid(self, sender: bytes) -> int | None:
        place, _, pid = sender.decode(errors="replace").rpartition("/")
        return int(pid) if place and place == self._place and pid.isdecimal() else None


def _stop(run_uid: str) -> dict[str, Any]:
    return {
        "uid": str(uuid.uuid4()),
        "run_start": run_uid,
        "time": time.time(),
        "exit_status": "fail",
        "reason": "the RunEngine's process ended in the middle of it",
    }


def _place() -> str:
    """Name this machine since it was started, and the processes that can be seen from here; empty: it is not Linux."""
    if not hasattr(os, "pidfd_open"):
        return ""
    try:
        return f"{BOOT_ID.read_text().strip()}/{PIDS.readlink()}"
    except OSError:
        return ""
