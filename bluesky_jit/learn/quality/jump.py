"""Whether the sample has changed abruptly."""

from __future__ import annotations

import math
from collections import deque

import numpy as np


class JumpDetector:
    """Notice an abrupt change of the data: accuracy on incoming pairs, before training on them, is off twice running.

    A deviation counts when it is above max(6 σ, 0.02) of the median of the last `level_of` ordinary values. σ comes
    from the differences of neighbours among the last `memory`, which a trend does not widen: fast learning neither
    hides a jump nor is taken for one. Only worsening counts.
    """

    def __init__(
        self, *, sigmas: float = 6.0, smallest: float = 0.02, memory: int = 50, level_of: int = 10, at_least: int = 10
    ) -> None:
        self._sigmas = sigmas
        self._smallest = smallest
        self._level_of = level_of
        self._at_least = at_least
        self._ordinary: deque[float] = deque(maxlen=memory)
        self._deviations = 0

    def reset(self) -> None:
        """Forget what was ordinary."""
        self._ordinary.clear()
        self._deviations = 0

    def update(self, incoming: float) -> bool:
        """Take the accuracy of an incoming batch and return whether the data has jumped (and start again if so)."""
        if not math.isfinite(incoming):
            return False
        if len(self._ordinary) >= self._at_least and incoming - self._level() > self._threshold():
            self._deviations += 1
        else:
            self._deviations = 0
            self._ordinary.append(incoming)
        if self._deviations < 2:
            return False
        self.reset()
        return True

    def _level(self) -> float:
        return float(np.median(list(self._ordinary)[-self._level_of :]))

    def _threshold(self) -> float:
        # Neighbours differ by √2 σ, and 1.4826 takes a median deviation to a standard one.
        steps = np.abs(np.diff(self._ordinary))
        return max(self._sigmas * 1.4826 * float(np.median(steps)) / math.sqrt(2), self._smallest)
