"""Learning while the data changes abruptly: strategies that all see the same jump, as in the paper's Results III."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bluesky_jit.bench import curves
from bluesky_jit.bench.curves import Curve
from bluesky_jit.bench.experiments import SEEDS, TRAINING_START_S, Recording, Setup, recording
from bluesky_jit.bench.pair_source import BATCH, PairSource
from bluesky_jit.learn.buffer import PairBuffer
from bluesky_jit.learn.model import Model, make_model
from bluesky_jit.learn.presets import Preset, preset_named
from bluesky_jit.learn.quality.jump import JumpDetector
from bluesky_jit.learn.region import Cylinder
from bluesky_jit.messages import Pairs

PAPER_STEPS_PER_BATCH = 16
"""The paper made 9 batches a second while its network trained with 141 iterations a second."""
HELD_OUT_TURNS = 2
"""Last turns of the recording, that accuracy is measured on; T3 needs as many for a sequence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """Say how a network learns online. buffer: pairs kept, 0 for none: each batch is trained on once, when it comes.

    steps_per_batch: steps between two new batches; watches: whether jumps are looked for, and the buffer emptied at
    one; whole_every: of so many batches one is from the whole jar, 0 for none.
    """

    name: str
    preset: str
    buffer: int
    steps_per_batch: int = PAPER_STEPS_PER_BATCH
    watches: bool = False
    whole_every: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Say when patches move from the top of the container to its bottom, and when it ends, in CPU s of training."""

    setup: Setup
    jump_s: float
    end_s: float
    folder: Path

    @property
    def moments_s(self) -> list[float]:
        """Return when accuracy is measured: often in the beginning, and again after the jump."""
        after = [self.jump_s + moment for moment in curves.moments(self.end_s - self.jump_s)]
        return [*curves.moments(self.jump_s), *after]

    def recording(self) -> Recording:
        return recording(self.setup, "A", SEEDS[0], TRAINING_START_S, self.folder)

    def source(self, preset: Preset, part: str, *, held_out: bool = False) -> PairSource:
        """Return pairs from the top or the bottom half of the jar or from the whole, to learn from or to measure on."""
        turns = self.setup.turns
        split = turns - HELD_OUT_TURNS
        recorded = self.recording()
        return PairSource(
            recorded,
            preset,
            seed=SEEDS[0] + held_out,
            region=half_of(recorded.jar, part),
            turns=(split, turns) if held_out else (0, split),
        )

    def held_out(self, preset: Preset) -> dict[str, Pairs]:
        """Return the pairs that accuracy is measured on, from the top and from the bottom."""
        return {part: self.source(preset, part, held_out=True).held_out() for part in ("top", "bottom")}

    def weights(self, name: str, when: str) -> Path:
        """Return the file of what was learnt before or after the jump."""
        return self._folder / f"{_file_name(name)}-{when}.pt"

    def kept(self, name: str, model: Model, make: Callable[[Model], Curve]) -> Curve:
        """Return a curve that was kept, or train now and keep its curve."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return curves.kept(self._folder / f"{_file_name(name)}.json", curves.recipe_of(model), lambda: make(model))

    @property
    def _folder(self) -> Path:
        return self.folder / f"online-{self.setup.geometry.n_u}-{self.jump_s:g}-{self.end_s:g}"


def half_of(jar: Cylinder, part: str) -> Cylinder:
    """Return the upper ("top") or lower ("bottom") half of the jar, or all of it."""
    sign = {"top": 0.5, "bottom": -0.5}.get(part)
    if sign is None:
        return jar
    return replace(jar, half_height_mm=jar.half_height_mm / 2, centre_mm=(0.0, 0.0, sign * jar.half_height_mm))


def follow(strategy: Strategy, replay: Replay) -> Curve:
    """Return the accuracy of a strategy where patches come from at each moment: the top, then the bottom."""
    preset = preset_named(strategy.preset)

    def make(model: Model) -> Curve:
        return _Follower(strategy, replay, model).run(replay.held_out(preset))

    return replay.kept(strategy.name, make_model(preset, seed=SEEDS[0]), make)


def learn_beforehand(name: str, preset_name: str, replay: Replay, *, seconds: float) -> Curve:
    """Return the accuracy, at the top and at the bottom, of a network that learns the top at leisure and no more."""
    preset = preset_named(preset_name)

    def make(model: Model) -> Curve:
        found = curves.train(
            model, replay.source(preset, "top"), replay.held_out(preset), seconds=seconds, seed=SEEDS[0]
        )
        model.save(replay.weights(name, "before"))
        return found

    return replay.kept(name, make_model(preset, seed=SEEDS[0]), make)


class _Follower:
    """Train on what comes, by a clock that stands still while pairs are made and accuracy is measured."""

    def __init__(self, strategy: Strategy, replay: Replay, model: Model) -> None:
        self._strategy = strategy
        self._replay = replay
        self._model = model
        preset = model.preset
        self._sources = {part: replay.source(preset, part) for part in ("top", "bottom", "whole")}
        self._buffer = PairBuffer(strategy.buffer, seed=SEEDS[0]) if strategy.buffer else None
        self._detector = JumpDetector()
        self._spent = 0.0
        self._pair_s = 0.0
        self._batches = 0

    def run(self, held_out: dict[str, Pairs]) -> Curve:
        """Train until the end; return the curve."""
        replay, model = self._replay, self._model
        took, steps, accuracies = [], [], []
        while self._buffer and len(self._buffer) < self._strategy.buffer:
            self._buffer.push(self._made())
        for moment in replay.moments_s:
            while self._spent < moment:
                self._step()
            took.append(self._spent)
            steps.append(model.step)
            accuracies.append(model.accuracy(held_out[self._part(moment)]).value)
            if moment in (replay.jump_s, replay.moments_s[-1]):
                model.save(replay.weights(self._strategy.name, "before" if moment == replay.jump_s else "after"))
        return Curve(
            recipe=curves.recipe_of(model),
            seconds=tuple(took),
            steps=tuple(steps),
            accuracy={"held-out": tuple(accuracies)},
            pair_s=self._pair_s,
        )

    def _step(self) -> None:
        strategy = self._strategy
        if self._buffer is None:
            pairs = self._made()
            # Until the next batch comes there is nothing to do, for as long as other strategies take their steps.
            self._spent += strategy.steps_per_batch * self._timed(lambda: self._model.train_step(pairs))
            return
        buffer = self._buffer
        if self._model.step % strategy.steps_per_batch == 0:
            pairs = self._made()
            if strategy.watches and self._batches_from_where_slices_are():
                self._spent += self._timed(lambda: self._watch(pairs))
            buffer.push(pairs)
        self._spent += self._timed(lambda: self._model.train_step(buffer.sample(BATCH)))

    def _watch(self, pairs: Pairs) -> None:
        """Judge new pairs before they are trained on; when they jump, forget the old ones."""
        if self._detector.update(self._model.accuracy(pairs).value) and self._buffer is not None:
            self._buffer.flush()
            self._model.restart_average()

    def _made(self) -> Pairs:
        """Make a batch from where patches come from now."""
        began = time.process_time()
        self._batches += 1
        part = self._part(self._spent) if self._batches_from_where_slices_are() else "whole"
        pairs = self._sources[part].batch()
        self._pair_s += time.process_time() - began
        return pairs

    def _batches_from_where_slices_are(self) -> bool:
        every = self._strategy.whole_every
        return every == 0 or self._batches % every != 0

    def _part(self, moment_s: float) -> str:
        return "top" if moment_s <= self._replay.jump_s else "bottom"

    @staticmethod
    def _timed(work: Callable[[], object]) -> float:
        began = time.process_time()
        work()
        return time.process_time() - began


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)
