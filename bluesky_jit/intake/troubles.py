"""Say what is wrong with the frames that come: at once what is news, and all the rest when the run has ended."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from bluesky_jit.intake.counts import UnusableCounts
from bluesky_jit.intake.ledger import Arrivals
from bluesky_jit.messages import Problem

logger = logging.getLogger(__name__)

MOST_NAMED = 5
"""Frames that a message names; it counts the others."""

SENTENCES = {
    "missing": "frames {} did not come from the detector",
    "duplicates": "frames {} came twice: the repeats were left out",
    "refused": "frames {} were damaged and left out: a good copy of them is used if one comes",
}
HARMLESS = ("late", "duplicates")
"""Nothing is lost, so that what was lost stays on show."""


class Troubles:
    """Collect what is wrong with one run's frames.

    The first of each kind is told at once, with the frames that it is about; the rest in one message at the end.
    """

    def __init__(self, run_uid: str) -> None:
        self.run_uid = run_uid
        self._news: list[Problem] = []
        self._told: set[str] = set()
        self._later: dict[str, list[int]] = {}

    def take(self) -> list[Problem]:
        """Return what is to be told now."""
        news, self._news = self._news, []
        return news

    def close(self) -> list[Problem]:
        """Return what is to be told in the end."""
        self._news += [self._sentence(kind, ids) for kind, ids in self._later.items()]
        self._later = {}
        return self.take()

    def once(self, problem: Problem) -> None:
        """Tell a problem unless it was told before."""
        if problem.text not in self._told:
            self._told.add(problem.text)
            self._news.append(problem)

    def add_fault(self, fault: UnusableCounts) -> None:
        """Tell what makes frames unusable, once for each reason."""
        if fault.reason not in self._told:
            self._told.add(fault.reason)
            self._news.append(Problem(text=str(fault), severity="MAJOR", run_uid=self.run_uid))

    def add(self, arrivals: Arrivals, *, tapped: bool) -> None:
        """Take what one block has shown."""
        if arrivals.restarted:
            self.once(self._problem("the detector's frame counter was set anew: frames are counted on from there"))
        if tapped and arrivals.missing:
            # No trouble yet: they are in the run's records, or documents will pass them, and then it is told.
            logger.info("frames %s did not come by PVA", named(arrivals.missing))
        self.add_missing(() if tapped else arrivals.missing)
        if arrivals.late:
            # Nor is this: they are used in their place, and counted.
            logger.info("frames %s came late, after newer ones", named(arrivals.late))
        self._add("duplicates", arrivals.duplicates)
        self._add("refused", arrivals.refused)

    def add_missing(self, ids: Iterable[int]) -> None:
        """Take what will not come any more."""
        self._add("missing", ids)

    def add_unplaced(self, n: int) -> None:
        """Take how many frames have waited for documents in vain."""
        if n:
            self.once(
                self._problem(
                    f"{n} frames that came by PVA did not say what they are or at what angle, and the run ended before "
                    "its documents did: they are not in the slices; give the camera the attributes FrameType and Angle"
                )
            )

    def add_without_room(self, n: int) -> None:
        """Take how many frames of the tap have found no room, and have come in no other way."""
        if n:
            text = (
                f"{n} frames came by PVA faster than they could be used, and no record of the run has brought them: "
                "they are lost to the slices; raise intake.queue_frames, and let the camera write files"
            )
            self.once(Problem(text=text, severity="MAJOR", run_uid=self.run_uid))

    def _add(self, kind: str, ids: Iterable[int]) -> None:
        ids = list(ids)
        if not ids:
            return
        if kind in self._told:
            self._later.setdefault(kind, []).extend(ids)
            return
        self._told.add(kind)
        self._news.append(self._sentence(kind, ids))

    def _sentence(self, kind: str, ids: Iterable[int]) -> Problem:
        text = SENTENCES[kind].format(named(ids))
        return Problem(text=text, severity="NO_ALARM" if kind in HARMLESS else "MINOR", run_uid=self.run_uid)

    def _problem(self, text: str) -> Problem:
        return Problem(text=text, run_uid=self.run_uid)


def named(ids: Iterable[int], most: int = MOST_NAMED) -> str:
    """Return the first few of some ids, and how many more there are."""
    numbers = list(ids)
    shown = ", ".join(str(number) for number in numbers[:most])
    return shown if len(numbers) <= most else f"{shown} and {len(numbers) - most} more"
