"""One frame of a run: who it is, when it was taken, and which of its copies have come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Taken(NamedTuple):
    """Say when a frame was taken, and which one it is; in order of time."""

    time_s: float
    unique_id: int
    epoch: int
    number: int


@dataclass(slots=True, eq=False)
class CountedFrame:
    unique_id: int
    time_s: float
    epoch: int
    number: int
    good: bool = False
    """Some copy of it could be used."""
    by_tap: bool = False
    by_documents: bool = False
    filled: bool = False
    """Good, and the tap has brought no good copy."""
    damaged: bool = False
    """Some copy of it could not be used."""
    ahead: int = 0
    """How many more repeats the tap has brought than documents."""
    settled: bool = False
    """It is kept among others, and its time stamp not exactly."""

    @property
    def taken(self) -> Taken:
        return Taken(self.time_s, self.unique_id, self.epoch, self.number)

    def repeat(self, *, tapped: bool) -> bool:
        """Take a repeat from one source; return whether the other one has not brought as many."""
        self.ahead += 1 if tapped else -1
        return self.ahead > 0 if tapped else self.ahead < 0


@dataclass(slots=True)
class Epoch:
    """What came of one count of the detector, until it is set anew. A frame's number is its id less `base`."""

    base: int
    lowest: int
    highest: int
