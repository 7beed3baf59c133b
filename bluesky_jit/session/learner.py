"""What the pairs and trainer stages share: pairs are made in one thread, learned from in another."""

from __future__ import annotations

import logging
import math
import threading
import time

from bluesky_jit.learn.buffer import PairBuffer
from bluesky_jit.learn.noise2inverse import PatchSampler, make_pairs
from bluesky_jit.learn.quality import JumpDetector, Readiness
from bluesky_jit.learn.region import field_cylinder
from bluesky_jit.learn.trainer import Trainer
from bluesky_jit.learn.weights import Weights
from bluesky_jit.messages import Learning, Pairs
from bluesky_jit.session.couplings import Latest
from bluesky_jit.settings import LearnSettings
from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.reconstructor import Reconstructor

logger = logging.getLogger(__name__)

HELD_OUT_EVERY = 20
"""Training batches between two batches of the guard region: about one in twenty is spent on telling how good it is."""

PICKS_PER_PAIR = 4
"""How often a pair is trained on, on average, once the buffer is full. Pairs made as fast as they can be cost the
trainer its core: two busy cores took 107 steps a second so, and 335 with this limit (docs/explanations/learning.md)."""

SNAPSHOT_EVERY = 20
"""Steps between two snapshots of the weights: some twenty a second, more often than slices are shown."""

RATE_SMOOTHING = 0.05
"""Share of a new value in the running figures (accuracy, loss) that people read."""


class Learner:
    """Learn to denoise one run. `make_batch` belongs to the pairs stage, `train` to the trainer stage."""

    def __init__(self, settings: LearnSettings, geometry: Geometry, voxel_mm: float) -> None:
        if settings.buffer < settings.batch:
            raise ValueError(
                f"learn.buffer is {settings.buffer} and learn.batch {settings.batch}: give room for at least a batch"
            )
        self._settings = settings
        self._sampler = PatchSampler(
            field_cylinder(geometry),
            voxel_mm=voxel_mm,
            patch=settings.patch,
            batch=settings.batch,
            seed=settings.seed,
        )
        self._buffer = PairBuffer(settings.buffer, seed=settings.seed)
        self._trainer = Trainer(settings.preset, seed=settings.seed)
        self._readiness = Readiness()
        self._jump = JumpDetector()
        self._held_out: Latest[Pairs] = Latest()
        self._batches = 0
        self._resets = threading.Event()
        self._accuracy = math.nan
        self._loss = math.nan
        self._rate = 0.0
        self._rate_from = (time.monotonic(), 0)
        self.weights: Weights | None = None
        """The newest snapshot: replaced, never changed."""

    @property
    def ready(self) -> bool:
        """Whether the denoised slice has been shown to beat the raw one."""
        return self._readiness.ready and self.weights is not None

    @property
    def accuracy(self) -> float:
        return self._accuracy

    def reset(self) -> None:
        """Ask for a fresh start: new weights, an empty buffer."""
        self._resets.set()

    def flush(self) -> None:
        """Empty the buffer; the weights stay."""
        self._buffer.flush()

    def learning(self, *, paused: bool) -> Learning:
        """Return what people are told."""
        counts = self._buffer.counts()
        return Learning(
            step=self._trainer.step,
            loss=self._loss,
            accuracy=self._accuracy,
            held_out=self._readiness.held_out,
            ready=self.ready,
            reason="learning is paused" if paused else self._readiness.reason,
            preset=self._settings.preset,
            pairs=counts.pushed,
            buffered=counts.buffered,
            picks_per_pair=counts.picks_per_pair,
            steps_per_s=self._rate,
            paused=paused,
        )

    def make_batch(self, reconstruction: Reconstructor, shown: tuple[Grid, ...]) -> bool:
        """Make a batch of training pairs, and now and then one of the guard region; return whether one was wanted."""
        if self._has_enough():
            return False
        self._sampler.show(shown)
        splits = reconstruction.pairs(self._sampler.train())
        if splits is None:
            return False
        self._buffer.push(make_pairs(splits))
        if self._batches % HELD_OUT_EVERY == 0:
            held_out = reconstruction.pairs(self._sampler.held_out())
            if held_out is not None:
                self._held_out.put(make_pairs(held_out))
        self._batches += 1
        return True

    def _has_enough(self) -> bool:
        """Tell whether the buffer is full of pairs that the trainer has not yet made use of."""
        counts, capacity = self._buffer.counts(), self._settings.buffer
        return counts.buffered >= capacity and counts.sampled < PICKS_PER_PAIR * (counts.pushed - capacity)

    def train(self) -> bool:
        """Take one step and judge the result; return False when there is nothing to learn from yet."""
        if self._resets.is_set():
            self._start_afresh()
        if len(self._buffer) < self._settings.batch:
            return False
        self._watch_incoming()
        loss = self._trainer.train_step(self._buffer.sample(self._settings.batch))
        self._loss = _smoothed(self._loss, loss)
        held_out = self._held_out.take()
        if held_out is not None:
            self._readiness.update(self._trainer.accuracy(held_out))
        if self._trainer.step % SNAPSHOT_EVERY == 0:
            self.weights = self._trainer.snapshot()
            self._measure_rate()
        return True

    def _watch_incoming(self) -> None:
        """Judge pairs before they are trained on; when they jump, the old ones are of no use any more."""
        fresh = self._buffer.fresh()
        if fresh is None:
            return
        accuracy = self._trainer.accuracy(fresh)
        if not math.isfinite(accuracy):
            return
        self._accuracy = _smoothed(self._accuracy, accuracy)
        if self._jump.update(accuracy):
            logger.info("the data changed abruptly (accuracy of new pairs %.3f): the buffer is emptied", accuracy)
            self._readiness.reset("the data changed abruptly: learning it")
            self._held_out.take()
            self._buffer.flush()
            self._buffer.push(fresh)
            # They were judged a moment ago.
            self._buffer.fresh()
            self._trainer.restart_average()

    def _start_afresh(self) -> None:
        self._resets.clear()
        self._trainer.reset()
        self._buffer.flush()
        self._readiness.reset("learning was started afresh")
        self._jump.reset()
        self._held_out.take()
        self._accuracy = self._loss = math.nan
        self.weights = None

    def _measure_rate(self) -> None:
        now, step = time.monotonic(), self._trainer.step
        since, from_step = self._rate_from
        if now - since >= 1.0:
            self._rate = max(0, step - from_step) / (now - since)
            self._rate_from = (now, step)


def _smoothed(old: float, new: float) -> float:
    return new if math.isnan(old) else old + RATE_SMOOTHING * (new - old)
