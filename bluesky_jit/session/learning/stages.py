"""The pairs loop and the trainer loop: both idle while there is nothing to learn."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from bluesky_jit.messages import Problem, Update
from bluesky_jit.session.learning.judging import Doubt, FailedJudgement
from bluesky_jit.session.learning.learner import Learner
from bluesky_jit.session.run import LiveRun
from bluesky_jit.session.shedding import PAIRS, STEPS

if TYPE_CHECKING:
    from bluesky_jit.session.wiring import Session

BREATH_S = 0.005
"""Pause while the other stage is awaited: less than a training step takes."""
IDLE_S = 0.1
"""Pause while there is no run to learn from, or after pairs that nothing can be learned from."""
PAUSED_S = 1.0
"""Between two batches to judge by while training is paused: denoised slices go on being judged."""

DOUBT_OF = "XY"
"""The slice whose doubt is shown, as its residual is; the others are judged as well."""


class PairMaker:
    """Make training pairs from the window for as long as a run lasts."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._next_s = 0.0
        self._batch_s = IDLE_S
        """How long the last batch took to make."""

    def loop(self) -> None:
        repeat_while_learning(self._session, self._make)

    def _make(self, run: LiveRun, learner: Learner) -> bool:
        if run.reconstruction is None or not run.reconstruction.complete:
            return False
        train = not self._session.paused
        if not train and time.monotonic() < self._next_s:
            return False
        shedding = self._session.shedding
        if shedding.level >= PAIRS:
            self._session.stopping.wait(self._batch_s)
            shedding.pairs += self._session.settings.learn.batch
            return True
        began_s = time.monotonic()
        self._next_s = began_s + PAUSED_S
        made = learner.make_batch(run.reconstruction, run.shown_grids(self._session.positions_mm), train=train)
        if made:
            self._batch_s = time.monotonic() - began_s
        return made


class Training:
    """Train on the buffer for as long as a run lasts, and judge what was learned."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._step_s = IDLE_S
        """How long the last step took."""

    def loop(self) -> None:
        repeat_while_learning(self._session, self._train, Learner.finish)

    def _train(self, run: LiveRun, learner: Learner) -> bool:
        shedding = self._session.shedding
        if shedding.level >= STEPS:
            self._session.stopping.wait(self._step_s)
            shedding.steps += 1
            return True
        began_s = time.monotonic()
        worked = learner.judge(learning=False) if self._session.paused else learner.train()
        if worked:
            self._step_s = time.monotonic() - began_s
        doubt = learner.doubts.take()
        # The doubt of a slice that is not shown would be of no use to anybody.
        if doubt is not None and doubt.whole.name == DOUBT_OF and doubt.figure.judged and learner.ready:
            self._session.published(_update(run, doubt, self._session.update_number))
        return worked


def repeat_while_learning(
    session: Session,
    work: Callable[[LiveRun, Learner], bool],
    finish: Callable[[Learner], None] = lambda learner: None,
) -> None:
    """Do a piece of work for the run on show again and again; it says whether there was any.

    What cannot be learned from is left out. finish: what is done with a run's learner when the run has ended.
    """
    met: dict[str, tuple[LiveRun, Learner]] = {}
    told: set[tuple[str, str]] = set()
    while not session.stopping.is_set():
        run = session.run
        current = run.learner if run is not None and not run.closed else None
        for uid, (other, learner) in tuple(met.items()):
            if other.closed:
                finish(learner)
                del met[uid]
                told = {each for each in told if each[0] != uid}
        if run is None or current is None:
            session.stopping.wait(IDLE_S)
            continue
        met[run.uid] = run, current
        try:
            if not work(run, current):
                session.stopping.wait(BREATH_S)
        except (ValueError, MemoryError) as error:
            text = f"pairs were left out of learning: {error}"
            if isinstance(error, FailedJudgement):
                text = f"what was learned could not be judged: {error}"
            elif isinstance(error, MemoryError):
                text = f"nothing is learned for want of memory, slices are raw ({error}): set a smaller learn.buffer"
            # Once for each kind: figures differ from batch to batch.
            kind = re.sub(r"\d+", "#", text)
            if (run.uid, kind) not in told:
                told.add((run.uid, kind))
                session.report(Problem(text=text, run_uid=run.uid))
            session.stopping.wait(IDLE_S)
    for _, learner in met.values():
        finish(learner)


def _update(run: LiveRun, doubt: Doubt, number: int) -> Update:
    """Return the map of a slice's doubt, beside the newest update of the slices when it was made."""
    whole, made = doubt.whole, doubt.whole.shown
    return Update(
        run_uid=run.uid,
        number=number,
        slice_name=whole.name,
        kind="doubt",
        grid=whole.grid,
        image=np.ascontiguousarray(doubt.figure.doubt[None]),
        angles=made.angles,
        turn=made.pushed // run.angles_per_turn,
        flats=run.flats,
        frame_time_s=made.frame_time_s,
        made_time_s=time.time(),
        axis_offset_mm=made.axis_offset_mm,
        preset=doubt.preset,
        weights_step=doubt.weights_step,
        accuracy=run.learner.accuracy if run.learner else float("nan"),
        ready=run.learner.ready if run.learner else False,
    )
