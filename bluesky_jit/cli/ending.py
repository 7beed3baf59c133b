"""An ending in good order, wherever SIGINT and SIGTERM strike: they are a wish to be looked at, never an exception."""

from __future__ import annotations

import atexit
import os
import signal
import socket
from types import FrameType, TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
FORCED_AT = 3
"""The third signal ends the process at once: whoever sends that many does not want to wait."""


class Ending:
    """Hear that the process is to end.

    A handler that raises may strike inside anything, the closing of sinks included. These only count, and wake
    whoever polls `fileno()`; `wanted` is looked at between the steps of whatever does not poll. They stay until the
    process has ended.
    """

    def __init__(self) -> None:
        self._count = 0
        self._woken, self._waking = socket.socketpair()
        self._waking.setblocking(False)

    @property
    def wanted(self) -> bool:
        return self._count > 0

    def fileno(self) -> int:
        """Return what becomes readable with the first signal."""
        return self._woken.fileno()

    def __enter__(self) -> Self:
        # Written to by the signal's own handler, in C: a poll that is just about to begin wakes, too.
        signal.set_wakeup_fd(self._waking.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, self._hear)
        # While Python takes itself down its handlers are gone, and a signal would count as a crash.
        atexit.register(_ignore)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(-1)
        self._waking.close()
        self._woken.close()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count >= FORCED_AT:
            os.write(2, b"ended by force: what was not written yet is lost, or waits on disk\n")
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


def _ignore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
