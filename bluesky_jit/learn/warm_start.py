"""Begin from a model of an earlier run, if that is better than to begin from nothing."""

from __future__ import annotations

import logging
import math
from collections import deque
from dataclasses import dataclass

from bluesky_jit.learn.model import Model, make_model
from bluesky_jit.learn.registry import Entry
from bluesky_jit.messages import Pairs

logger = logging.getLogger(__name__)

TRIAL_STEPS = 100
"""Steps that both take before they are compared: an untrained network would lose against anything. The second network
costs 0.2 s of one core in these."""
JUDGED = 8
"""Held-out batches, the newest, that the comparison is made on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Say which model goes on, whether it began from the registered one, and why."""

    model: Model
    warm: bool
    reason: str


class WarmStart:
    """Train a fresh model and a registered one on the same batches, compare them on held-out pairs, keep the better.

        trial = WarmStart(make_model(preset, seed=seed), registry.nearest(fingerprint))
        while trial.start is None:
            trial.train_step(buffer.sample(32))   # both take this step
            trial.judge(held_out)                 # whenever there are pairs that are never trained on
        model = trial.start.model                 # goes on from there; trial.start.reason says why

    Until then `leader` is the better one so far. A fresh model that is kept has learnt exactly what it would have
    learnt without the other.
    """

    def __init__(self, fresh: Model, entry: Entry | None, *, steps: int = TRIAL_STEPS) -> None:
        """Begin; entry: what the registry found, None for nothing, which decides at once."""
        self._fresh = fresh
        self._entry = entry
        self._steps = steps
        self._taken = 0
        self._held_out: deque[Pairs] = deque(maxlen=JUDGED)
        self._registered: Model | None = None
        self.start: Start | None = None
        """The outcome; None while it is open."""
        self.leader: Model = fresh
        """The model that was better on the held-out pairs when they were last judged."""
        if entry is None:
            self._begin_fresh("no registered model is near")
            return
        try:
            registered = make_model(fresh.preset)
            registered.load_weights(entry.load())
        except (ValueError, RuntimeError) as error:
            # PyTorch says with a RuntimeError that weights do not fit a network.
            self._begin_fresh(f"the registered model {entry.path.name} cannot be used: {error}")
            return
        self._registered = self.leader = registered

    def train_step(self, pairs: Pairs) -> float:
        """Let both take a step and return the leader's loss; raise ValueError for pairs that cannot be learnt from."""
        loss = self._fresh.train_step(pairs)
        if self._registered is None:
            return loss
        try:
            its_loss = self._registered.train_step(pairs)
        except ValueError as error:
            self._begin_fresh(f"the registered model {self._name} could not learn from these pairs: {error}")
            return loss
        self._taken += 1
        loss = its_loss if self.leader is self._registered else loss
        self._decide()
        return loss

    def judge(self, held_out: Pairs) -> None:
        """Take pairs that are never trained on, and compare the two on what there is of these."""
        if self._registered is None:
            return
        self._held_out.append(held_out)
        self._compare()
        self._decide()

    @property
    def _name(self) -> str:
        return self._entry.path.name if self._entry else ""

    def _compare(self) -> tuple[float, float]:
        """Return both accuracies, the fresh one's first, and see who leads."""
        registered = self._registered
        if registered is None or not self._held_out:
            return math.nan, math.nan
        fresh, its = (_mean_accuracy(model, self._held_out) for model in (self._fresh, registered))
        # Before its first step a fresh model has no accuracy: what is registered leads by itself.
        self.leader = self._fresh if fresh <= its or math.isnan(its) else registered
        return fresh, its

    def _decide(self) -> None:
        if self.start is not None or self._taken < self._steps or not self._held_out:
            return
        fresh, its = self._compare()
        figures = (
            f"held-out accuracy {its:.4f} of the registered model {self._name}, {fresh:.4f} of a fresh one, after "
            f"{self._taken} steps of each"
        )
        if its < fresh and self._registered is not None:
            self._end(Start(model=self._registered, warm=True, reason=f"started from a registered model: {figures}"))
        else:
            self._begin_fresh(f"it is no better: {figures}")

    def _begin_fresh(self, why: str) -> None:
        self._registered, self.leader = None, self._fresh
        self._end(Start(model=self._fresh, warm=False, reason=f"started from nothing: {why}"))

    def _end(self, start: Start) -> None:
        self.start = start
        self._held_out.clear()
        logger.info(start.reason)


def _mean_accuracy(model: Model, batches: deque[Pairs]) -> float:
    return sum(model.accuracy(batch).value for batch in batches) / len(batches)
