"""What happens when a stage fails: it is reported, restarted once, and then the session goes on without it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from bluesky_jit.messages import Problem

logger = logging.getLogger(__name__)

RESTARTS = 1
"""A stage that fails once may have met a bad frame; one that fails again would fail for ever."""

FORGIVEN_S = 600.0
"""A stage that has run for so long is well again: an earlier failure does not count any more."""

BACKGROUND_NICENESS = 10
"""Learning gives way to frames and slices when the cores are busy."""


class Stage:
    """Run a loop in a named thread, restart it once when it raises, then report it as lost."""

    def __init__(
        self,
        name: str,
        body: Callable[[], None],
        report: Callable[[Problem], None],
        *,
        background: bool = False,
        when_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare; when_lost: called once, in the stage's thread, when it has failed for good."""
        self.name = name
        self.failures = 0
        self._body = body
        self._report = report
        self._background = background
        self._when_lost = when_lost
        self._thread = threading.Thread(target=self._run, name=f"jit-{name}", daemon=True)

    @property
    def lost(self) -> bool:
        return self.failures > RESTARTS

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the loop to end; return whether it did."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        if self._background:
            give_way()
        while not self.lost:
            began_s = time.monotonic()
            try:
                self._body()
                return
            except Exception as error:
                self.failures = 1 if time.monotonic() - began_s > FORGIVEN_S else self.failures + 1
                logger.exception("stage %s failed", self.name)
                then = "the session goes on without it; restart the service" if self.lost else "it was restarted"
                text = f"stage {self.name} failed ({error}): {then}"
                lasts = f"stage {self.name}" if self.lost else ""
                self._report(Problem(text=text, severity="MAJOR", lasts=lasts))
        self._when_lost()


def give_way() -> None:
    """Lower the priority of the calling thread, where the system can (Linux)."""
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BACKGROUND_NICENESS)
