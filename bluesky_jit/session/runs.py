"""Which runs are open, and which of them is on show."""

from __future__ import annotations

from bluesky_jit.session.run import LiveRun

STALE_S = 10.0
"""A run without a new frame for so long is shown as stale, and gives way to one that still brings some."""


class Runs:
    """Know the open runs and the one on show. The intake stage writes, anybody reads.

    On show is the newest run that brings frames. A run that has none yet takes nothing away from one that has; one that
    has ended stays on show until another run begins or brings frames.
    """

    def __init__(self) -> None:
        self.open: dict[str, LiveRun] = {}
        """By uid, in the order in which they began; replaced as a whole, so that anybody may go through it."""
        self.shown: LiveRun | None = None

    def add(self, run: LiveRun) -> None:
        """Take in a run that has begun."""
        if not any(other.has_frames for other in self.open.values()):
            self.shown = run
        self.open = {**self.open, run.uid: run}

    def fed(self, run: LiveRun) -> None:
        """Note that an open run has brought frames."""
        shown = self.shown
        if shown is None or shown.uid not in self.open or run in self._after(shown) or shown.stalled_for(STALE_S):
            self.shown = run

    def remove(self, run: LiveRun) -> None:
        """Let go of a run that has ended; of those that go on, the newest that has brought frames is shown."""
        later = self._after(run)
        self.open = {uid: other for uid, other in self.open.items() if other is not run}
        if self.shown is run:
            fed = [other for other in self.open.values() if other.has_frames]
            self.shown = (fed or later or [run])[-1]

    def _after(self, run: LiveRun) -> list[LiveRun]:
        """Return the open runs that began after an open one."""
        runs = list(self.open.values())
        return runs[runs.index(run) + 1 :]
