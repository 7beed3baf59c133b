"""How often something happens in a second."""

from __future__ import annotations

import time
from collections.abc import Callable

SPAN_S = 1.0
"""Over which a rate is measured."""


class Rates:
    """Turn counts that only grow, or start again, into rates; each is of the last whole span."""

    def __init__(self, *names: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since_s = clock()
        self._counts = dict.fromkeys(names, 0)
        self._rates = dict.fromkeys(names, 0.0)

    def __getitem__(self, name: str) -> float:
        return self._rates[name]

    def update(self, **counts: int) -> None:
        """Take the present counts."""
        now_s = self._clock()
        span_s = now_s - self._since_s
        if span_s >= SPAN_S:
            self._rates = {name: max(0, counts[name] - before) / span_s for name, before in self._counts.items()}
            self._counts, self._since_s = counts, now_s
