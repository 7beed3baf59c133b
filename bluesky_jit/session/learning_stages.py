"""The pairs loop and the trainer loop: both idle while there is nothing to learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bluesky_jit.messages import Problem
from bluesky_jit.session.learner import Learner
from bluesky_jit.session.run import LiveRun

if TYPE_CHECKING:
    from bluesky_jit.session.wiring import Session

BREATH_S = 0.005
"""Pause while the other stage is awaited: less than a training step takes."""
IDLE_S = 0.1
"""Pause while there is no run to learn from."""


class PairMaker:
    """Make training pairs from the window for as long as a run lasts."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def loop(self) -> None:
        repeat_while_learning(self._session, self._make)

    def _make(self, run: LiveRun, learner: Learner) -> bool:
        if run.reconstruction is None or not run.reconstruction.complete:
            return False
        shown = tuple(run.shown_grids(self._session.positions_mm).values())
        return learner.make_batch(run.reconstruction, shown)


class Training:
    """Train on the buffer for as long as a run lasts."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def loop(self) -> None:
        repeat_while_learning(self._session, lambda _, learner: learner.train())


def repeat_while_learning(session: Session, work: Callable[[LiveRun, Learner], bool]) -> None:
    """Do a piece of work again and again; it says whether there was any. What cannot be learned from is left out."""
    while not session.stopping.is_set():
        run = session.run
        if run is None or run.learner is None or run.closed or session.paused:
            session.stopping.wait(IDLE_S)
            continue
        try:
            worked = work(run, run.learner)
        except ValueError as error:
            session.report(Problem(text=f"pairs were left out of learning: {error}", run_uid=run.uid))
            worked = False
        if not worked:
            session.stopping.wait(BREATH_S)
