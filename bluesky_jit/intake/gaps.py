"""The gaps in the detector's ids: what is missing, and which of it will not come any more."""

from __future__ import annotations

import bisect

Place = tuple[int, int]
"""A frame's epoch and id."""


class Gaps:
    """Keep in order what is missing. What documents have passed is gone, unless it comes after all."""

    def __init__(self) -> None:
        self._missing: list[Place] = []
        self._untold: list[Place] = []
        """Of those, what was not told to be gone."""
        self._reached: Place = (-1, 0)
        """The furthest that documents have told of."""

    def __len__(self) -> int:
        return len(self._missing)

    def __contains__(self, place: Place) -> bool:
        at = bisect.bisect_left(self._missing, place)
        return at < len(self._missing) and self._missing[at] == place

    def open(self, gap: list[Place]) -> None:
        """Miss what lies between two ids, in order; nothing else was missing there."""
        for places in (self._missing, self._untold) if gap else ():
            at = bisect.bisect_left(places, gap[0])
            places[at:at] = gap

    def close(self, epoch: int, first: int, stop: int) -> None:
        """Miss no ids from first to before stop."""
        for places in (self._missing, self._untold):
            begin = bisect.bisect_left(places, (epoch, first))
            del places[begin : bisect.bisect_left(places, (epoch, stop), begin)]

    def announce(self, place: Place) -> None:
        """Take note that documents have told of a frame."""
        self._reached = max(self._reached, place)

    def shift(self, by: int) -> None:
        """Follow ids that are counted otherwise."""
        self._missing, self._untold = (
            [(epoch, unique_id + by) for epoch, unique_id in places] for places in (self._missing, self._untold)
        )
        self._reached = self._reached[0], self._reached[1] + by

    def gone(self, *, finished: bool) -> int:
        """Count what will not come any more: of a run that has finished, all."""
        return len(self._missing) if finished else bisect.bisect_left(self._missing, self._reached)

    def newly_gone(self, *, finished: bool) -> tuple[int, ...]:
        """Return the ids of what is gone and was not told before."""
        n = len(self._untold) if finished else bisect.bisect_left(self._untold, self._reached)
        told, self._untold[:n] = self._untold[:n], []
        return tuple(unique_id for _, unique_id in told)
