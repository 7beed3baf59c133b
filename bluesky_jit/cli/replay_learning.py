"""Let a session learn on after a scan: until it is ready and improves no more, time is up, or somebody ends it."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bluesky_jit.cli.replay import Bars
    from bluesky_jit.session.wiring import Session

logger = logging.getLogger(__name__)

LOOK_S = 0.5
"""Between two looks at how learning goes."""
EVALUATIONS = 2
"""Accuracies whose mean tells whether the network still improves: single ones scatter."""


@contextmanager
def first_interrupt() -> Iterator[Callable[[], bool]]:
    """Say whether Ctrl-C was pressed; from the second time on it interrupts, as it does elsewhere."""
    pressed = False
    if threading.current_thread() is not threading.main_thread() or (
        signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        # Whoever has a handler of their own wants no other.
        yield lambda: pressed
        return

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, hear)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def learn_on(session: Session, seconds: float, bars: Bars) -> None:
    """Let the session learn from what has come until it is ready and improves no more; its run has not ended yet."""
    with first_interrupt() as interrupted:
        _learn_on(session, seconds, bars, interrupted)


def _learn_on(session: Session, seconds: float, bars: Bars, interrupted: Callable[[], bool]) -> None:
    began = time.monotonic()
    since_ready: list[float] = []
    while True:
        learning, run = session.status.learning, session.run
        if run is None or run.learning_problem or not run.reconstruction or not run.reconstruction.ready:
            return
        done = time.monotonic() - began
        note = "" if math.isnan(learning.held_out) else f", accuracy {learning.held_out:.2f}"
        bars.advance("learning", round(min(done, seconds)), round(seconds), note)
        if not learning.ready:
            since_ready.clear()
        elif not since_ready or learning.held_out != since_ready[-1]:
            since_ready.append(learning.held_out)
        # The noise of so few projections would be learned by heart.
        if done >= seconds or not still_improves(since_ready):
            return
        failed = session.wait_for(lambda status: status.state == "failed", min(LOOK_S, seconds - done))
        if interrupted():
            logger.warning("learning is ended, and what there is will be drawn; Ctrl-C again leaves without it")
        if failed or interrupted():
            return


def still_improves(accuracies: list[float]) -> bool:
    """Tell whether the last accuracies are lower than those before, or too few to tell."""
    newest, before = accuracies[-EVALUATIONS:], accuracies[-2 * EVALUATIONS : -EVALUATIONS]
    return len(before) < EVALUATIONS or sum(newest) < sum(before)
