"""Send frames no faster than they are taken: at full speed none is lost, and none waits for long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bluesky_jit.settings import Settings

POLL_S = 0.02
STUCK_S = 60.0
"""No frame is worked on for so long, even where loops are still compiled: nobody takes them."""

Taken = Callable[[str], int]
"""Say how many frames of the run with that uid have been taken so far, lost ones included."""


class Flow:
    """Pass documents on, and wait before a frame that would be one more than `most` on the way."""

    def __init__(
        self,
        emit: Callable[[str, dict[str, Any]], None],
        taken: Taken,
        *,
        most: int,
        says: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Begin; says: what whoever takes the frames has to say, if anything."""
        self._says = says
        self._emit, self._taken, self._most = emit, taken, max(1, most)
        self._clock, self._sleep = clock, sleep
        self._uid = ""
        self._sent = 0
        self._known = 0

    def __call__(self, name: str, document: dict[str, Any]) -> None:
        if name == "start":
            self._uid, self._sent, self._known = document["uid"], 0, 0
        if name == "event":
            self.wait(self._most - 1)
            self._sent += 1
        self._emit(name, document)

    def wait(self, most: int = 0) -> None:
        """Wait until at most so many frames are on the way; raise RuntimeError when they are not taken."""
        if self._sent - self._known <= most:
            return
        since = self._clock()
        while True:
            taken = self._taken(self._uid)
            if taken > self._known:
                self._known, since = taken, self._clock()
            if self._sent - self._known <= most:
                return
            if self._clock() - since > STUCK_S:
                raise RuntimeError(
                    f"{self._sent} frames were sent and {self._known} taken, none of them for {STUCK_S:g} s: "
                    f"{self._says() or 'the session does not say why'}"
                )
            self._sleep(POLL_S)


@contextmanager
def counted_by_pvs(settings: Settings) -> Iterator[tuple[Taken, Callable[[], str]]]:
    """Give what a service on this machine says of its frames; raise RuntimeError when its PVs do not answer.

    The second of them gives its message to people.
    """
    from bluesky_jit.cli.watch import Watch

    with Watch(settings) as watch:

        def taken(uid: str) -> int:
            values = watch.values()
            if values["FramesReceived"] is None:
                raise RuntimeError(
                    f"no PVs {settings.epics.prefix}* on port {settings.epics.pva_port} of this machine: without them "
                    "nobody knows how many frames the service has taken; give --rate HZ instead of full speed"
                )
            return values["FramesReceived"] + values["FramesLost"] if values["RunUid"] == uid else 0

        taken("")
        yield taken, lambda: str(watch.values()["Message"] or "")
