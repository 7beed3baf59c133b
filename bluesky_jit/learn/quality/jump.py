"""Whether the sample has changed abruptly."""

from __future__ import annotations

import math
from collections import deque

import numpy as np


class JumpDetector:
    """Notice an abrupt change of the data: accuracy on incoming pairs, before training on them, is off twice running.

    A deviation counts when it is above max(6 σ, 0.02), σ over the last `memory` ordinary values. Only worsening counts:
    while the network learns, accuracy improves fast and that is no jump.
    """

    def __init__(self, *, sigmas: float = 6.0, smallest: float = 0.02, memory: int = 50, at_least: int = 10) -> None:
        self._sigmas = sigmas
        self._smallest = smallest
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
        known = np.array(self._ordinary)
        if len(known) >= self._at_least and incoming - known.mean() > max(self._sigmas * known.std(), self._smallest):
            self._deviations += 1
        else:
            self._deviations = 0
            self._ordinary.append(incoming)
        if self._deviations < 2:
            return False
        self.reset()
        return True
