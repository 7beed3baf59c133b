"""What is left undone while frames come faster than they can be used: display first, then training, never frames."""

from __future__ import annotations

import time
from collections.abc import Callable

from bluesky_jit.messages import Shed

BEHIND_S = 1.0
"""Frames that have waited for longer are too old to be called live, whatever comes next."""
HALF = 0.5
"""Part of the inbox' room for frames from events from which on the rest is needed for a burst."""
RISE_S = 2.0
"""What was given up has so long to take effect before more is given up; a burst of frames is over by then."""
FALL_S = 3.0
"""So long frames must have been in time before something is taken up again: longer than it takes to fall behind."""
SLOWDOWN = 4.0
"""Between updates of the slices passes so many times as long as usual."""
UPDATES, PAIRS, STEPS = 1, 2, 3
"""Levels, each with what is given up first at it."""


class Shedding:
    """Decide what is left undone while intake is behind. Intake looks; the other stages ask, and count what they leave.

    level: 0: nothing is left undone; 1: slices are updated less often; 2: no training pairs are made, either; 3: nor
    are training steps taken.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.level = 0
        self._changed_s = self._behind_s = clock()
        self.updates = 0
        """Updates left out, counted by the slices stage; training pairs and steps by the stages that make them."""
        self.pairs = 0
        self.steps = 0

    def look(self, lag_s: float, fill: float) -> bool:
        """Take note of how long frames have waited, and what part of the inbox is full.

        Return whether training begins to wait: a burst of frames that costs some updates is no news.
        """
        now_s, before = self._clock(), self.level
        if lag_s > BEHIND_S or fill > HALF:
            self._behind_s = now_s
            if self.level == 0 or (self.level < STEPS and now_s - self._changed_s >= RISE_S):
                self.level += 1
                self._changed_s = now_s
        elif self.level and now_s - max(self._behind_s, self._changed_s) >= FALL_S:
            self.level -= 1
            self._changed_s = now_s
        return before < PAIRS <= self.level

    @property
    def slowdown(self) -> float:
        """Return how many times as long as usual passes between updates."""
        return SLOWDOWN if self.level >= UPDATES else 1.0

    @property
    def counts(self) -> Shed:
        """Return how much has been left undone since the session began."""
        return Shed(updates=self.updates, pairs=self.pairs, steps=self.steps)
