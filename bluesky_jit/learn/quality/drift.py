"""Whether the accuracy worsens slowly: a sample that changes faster than the network follows, or a beam that fades."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

FEWEST_BINS = 6
"""Bins that a trend is told from."""
SIGMAS = 3.0
"""Standard errors beyond which a slope counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftFigure:
    """Say how the accuracy of fresh pairs changes: change a minute (positive is worse), its error, and words.

    over_s: how long it was watched; change: what it comes to in that time. NaN before there is enough.
    """

    per_minute: float = math.nan
    uncertainty: float = math.nan
    over_s: float = 0.0
    change: float = math.nan
    words: str = "not watched for long enough"


class Drift:
    """Follow the accuracy of fresh pairs over minutes; nothing is flushed, it is only told.

    Values are averaged over `bin_s`, so that a fast stream costs nothing and its noise averages out; the trend is a
    straight line through the bins of the last `memory_s`. A change below `smallest` is not worth a word.
    """

    def __init__(
        self,
        *,
        bin_s: float = 10.0,
        memory_s: float = 300.0,
        smallest: float = 0.02,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bin_s = bin_s
        self._smallest = smallest
        self._clock = clock
        self._bins: deque[tuple[float, float]] = deque(maxlen=round(memory_s / bin_s))
        self.reset()

    def reset(self) -> None:
        """Start again, as after a jump."""
        self._bins.clear()
        self._sum, self._count, self._since_s = 0.0, 0, math.nan

    def update(self, accuracy: float) -> float:
        """Take the accuracy of fresh pairs and return its change a minute."""
        if math.isfinite(accuracy):
            self._add(accuracy)
        return self.figure().per_minute

    def _add(self, accuracy: float) -> None:
        now = self._clock()
        if self._count and now - self._since_s >= self._bin_s:
            self._bins.append((self._since_s + self._bin_s / 2, self._sum / self._count))
            self._sum, self._count = 0.0, 0
        if not self._count:
            self._since_s = now
        self._sum += accuracy
        self._count += 1

    def figure(self) -> DriftFigure:
        """Return the trend of the bins that are full."""
        count = len(self._bins)
        if count < FEWEST_BINS:
            return DriftFigure()
        times, values = np.array(self._bins).T
        minutes = (times - times.mean()) / 60
        spread = float(np.square(minutes).sum())
        slope = float((minutes * values).sum()) / spread
        left = values - values.mean() - slope * minutes
        error = math.sqrt(float(np.square(left).sum()) / (count - 2) / spread)
        over_s = float(times[-1] - times[0])
        change = slope * over_s / 60
        return DriftFigure(
            per_minute=slope,
            uncertainty=error,
            over_s=over_s,
            change=change,
            words=self._words(slope, error, over_s, change),
        )

    def _words(self, slope: float, error: float, over_s: float, change: float) -> str:
        if abs(slope) < SIGMAS * error or abs(change) < self._smallest:
            return f"steady over the last {over_s / 60:.1f} min"
        way = "worsened" if slope > 0 else "improved"
        return f"accuracy of new pairs {way} by {abs(change):.3f} over the last {over_s / 60:.1f} min"
