"""Accuracy against seconds of training: the clock runs while a batch is drawn and trained on, and at no other time."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from bluesky_jit.bench.figures import processor
from bluesky_jit.bench.pair_source import BATCH
from bluesky_jit.bench.provenance import code_digest
from bluesky_jit.learn.buffer import PairBuffer
from bluesky_jit.learn.model import Model
from bluesky_jit.messages import Pairs

BUFFER = 640
"""Pairs in the buffer, as a session has them by default."""
PICKS_PER_PAIR = 4
"""Times that a pair is drawn on average, as in a session: one new batch for so many steps."""
MADE_BY = ("bluesky_jit.learn", "bluesky_jit.tomo", "bluesky_jit.bench", "sim_devices")
"""What a curve depends on: networks, slices, what is measured, and the sample."""
FIRST_S, RATIO = 0.05, 1.12
"""When accuracy is first measured, and by what the next moment is later: a crossing is known to 12 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Hold accuracies on held-out pairs, by name, against CPU seconds of training and against steps.

    pair_s: CPU seconds that making pairs took besides, over the whole curve; recipe: what was trained, in words.
    """

    recipe: str
    seconds: tuple[float, ...]
    steps: tuple[int, ...]
    accuracy: dict[str, tuple[float, ...]]
    pair_s: float

    def at(self, seconds: float, name: str = "held-out") -> float:
        """Return the accuracy at the first measurement that is not before a moment; the last one if none is."""
        values = self.accuracy[name]
        return next((a for s, a in zip(self.seconds, values, strict=True) if s >= seconds), values[-1])

    def passes(self, accuracy: float, name: str = "held-out") -> tuple[float, float]:
        """Return after how many seconds and steps it is first as good as an accuracy; infinity when it never is."""
        values = zip(self.seconds, self.steps, self.accuracy[name], strict=True)
        return next(((s, float(n)) for s, n, a in values if a <= accuracy), (math.inf, math.inf))

    @property
    def steps_per_s(self) -> float:
        return self.steps[-1] / self.seconds[-1]


class Source(Protocol):
    """Make pairs to learn from."""

    def batch(self) -> Pairs: ...


def moments(seconds: float, also: Iterable[float] = ()) -> list[float]:
    """Return when accuracy is measured: ever further apart, at the end, and at given moments."""
    count = max(0, math.floor(math.log(seconds / FIRST_S) / math.log(RATIO))) + 1 if seconds > FIRST_S else 0
    spread = {FIRST_S * RATIO**k for k in range(count)}
    return sorted({moment for moment in {*spread, *also, seconds} if moment <= seconds})


def train(
    model: Model,
    source: Source,
    held_out: Mapping[str, Pairs],
    *,
    seconds: float,
    seed: int,
    measured: Iterable[float] = (),
    reached: Callable[[float], None] = lambda moment: None,
    clock: Callable[[], float] = time.process_time,
) -> Curve:
    """Train for so many seconds of a clock, and measure accuracy now and then while it stands still.

    The buffer is full before training begins. reached: called at each moment at which accuracy is measured.
    """
    buffer = PairBuffer(BUFFER, seed=seed)
    spent, pair_s = 0.0, 0.0
    took: list[float] = []
    steps: list[int] = []
    accuracies: dict[str, list[float]] = {name: [] for name in held_out}

    def push() -> None:
        nonlocal pair_s
        began = clock()
        buffer.push(source.batch())
        pair_s += clock() - began

    while len(buffer) < BUFFER:
        push()
    for moment in moments(seconds, measured):
        while spent < moment:
            if model.step % PICKS_PER_PAIR == 0:
                push()
            began = clock()
            model.train_step(buffer.sample(BATCH))
            spent += clock() - began
        took.append(spent)
        steps.append(model.step)
        for name, pairs in held_out.items():
            accuracies[name].append(model.accuracy(pairs).value)
        reached(moment)
    return Curve(
        recipe=recipe_of(model),
        seconds=tuple(took),
        steps=tuple(steps),
        accuracy={name: tuple(values) for name, values in accuracies.items()},
        pair_s=pair_s,
    )


def recipe_of(model: Model) -> str:
    """Say what is trained, on what machine and by what code: kept curves are of use only while all that is the same."""
    weights = sum(tensor.numel() for tensor in model.snapshot().tensors.values())
    preset = model.preset
    learnt = f"{preset.name}, {weights} weights, normalised by {preset.normalisation}, {preset.recipe}"
    return f"{learnt}; {processor()}; code {code_digest(*MADE_BY)}"


def kept(path: Path, recipe: str, make: Callable[[], Curve]) -> Curve:
    """Return the curve of a file, made and kept there when it is missing or of another recipe."""
    if path.exists():
        curve = _read(path)
        if curve.recipe == recipe:
            return curve
    curve = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(asdict(curve)))
    unfinished.replace(path)
    return curve


def _read(path: Path) -> Curve:
    values = json.loads(path.read_text())
    return Curve(
        recipe=values["recipe"],
        seconds=tuple(values["seconds"]),
        steps=tuple(values["steps"]),
        accuracy={name: tuple(accuracies) for name, accuracies in values["accuracy"].items()},
        pair_s=values["pair_s"],
    )
