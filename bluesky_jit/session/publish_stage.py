"""The publish loop: everything that waits to the sinks, and the heartbeat."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bluesky_jit.messages import Problem

if TYPE_CHECKING:
    from bluesky_jit.session.wiring import Session

HEARTBEAT_S = 0.5
WAIT_S = 0.05
HUNG_S = 30.0
"""On a laptop that has ten other things to do intake has been seen to wait for its core for ten seconds."""


class Publishing:
    """Hand everything that waits to the sinks, and a status twice a second: the heartbeat."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._told = False

    def _watch_intake(self) -> None:
        """Say when intake hangs: everything else would look as if no frames came."""
        hung = self._session.inbox.age_s > HUNG_S
        if hung and not self._told:
            text = (
                f"nothing that came in the last {HUNG_S:g} s was taken in: does a disk hang that frames are read from?"
            )
            self._session.report(Problem(text=f"{text} If it stays, restart the service", severity="MAJOR"))
        self._told = hung

    def loop(self) -> None:
        due = 0.0
        while not self._session.stopping.is_set():
            for message in self._session.outbox.take(WAIT_S):
                self._session.to_sinks(message)
            if time.monotonic() >= due:
                due = time.monotonic() + HEARTBEAT_S
                self._watch_intake()
                self._session.to_sinks(self._session.status)
