"""The publish loop: everything that waits to the sinks, and the heartbeat."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bluesky_jit.session.wiring import Session

HEARTBEAT_S = 0.5
WAIT_S = 0.05


class Publishing:
    """Hand everything that waits to the sinks, and a status twice a second: the heartbeat."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def loop(self) -> None:
        due = 0.0
        while not self._session.stopping.is_set():
            for message in self._session.outbox.take(WAIT_S):
                self._session.to_sinks(message)
            if time.monotonic() >= due:
                due = time.monotonic() + HEARTBEAT_S
                self._session.to_sinks(self._session.status)
