"""Choose preset, buffer and region of patches by trying them on this sample, in the first seconds of learning."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bluesky_jit.learn.model import Model, make_denoiser, make_model
from bluesky_jit.learn.presets import Preset, preset_named
from bluesky_jit.messages import Pairs

logger = logging.getLogger(__name__)

CANDIDATES = ("unet-fast", "unet-fast-z3", "unet-fast-t3")
"""What is tried, the simplest first. The plain nets are left out: beside these they differ less than two seeds do."""
TRIAL_CPU_S = 1.5
"""CPU time of the whole trial: 0.5 s of each, in which the order had settled on both experiments."""
TIE = 0.005
"""Difference of accuracies that is none: of two seeds of one preset, half differed by less after a trial."""
JUDGED = 8
"""Held-out batches, the newest, that candidates are judged on."""
FEWEST_PAIRS, MOST_PAIRS = 320, 960
"""Sizes of the buffer. Larger ones learn no better, and hold older pairs; much smaller ones are learnt by heart."""
MIXED, MORE_WHOLE, NEAR = 0.25, 0.5, 0.0
"""Parts of the patches that come from the whole region instead of from near the slices on show."""
REGION_MARGIN = 0.02
"""Difference of accuracies between the slices on show and the whole region that is worth moving patches: about twice
what it scatters by, that of 256 patches being known to 0.006."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Say what the session is to keep up with, as measured.

    updates_per_s: wanted updates of the shown slices; slice_shapes: theirs, (ny, nx) each; slice_s: what reconstructing
    them takes, without neighbours; pairs_per_s: pairs that are made in a second, of the shape that is tried with;
    window_s: how long the projections of one window take to come.
    """

    updates_per_s: float
    slice_shapes: tuple[tuple[int, int], ...]
    slice_s: float
    pairs_per_s: float
    window_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Say what was chosen and why, in one sentence; the model goes on from where its trial ended."""

    preset: Preset
    model: Model
    buffer: int
    whole_fraction: float
    reason: str


@dataclass(slots=True)
class _Candidate:
    model: Model
    used_s: float = 0.0
    accuracy: float = math.inf

    @property
    def preset(self) -> Preset:
        return self.model.preset

    @property
    def slices(self) -> int:
        """Return how many slices its network looks at."""
        return self.preset.frames * self.preset.depth


def cut(pairs: Pairs, preset: Preset) -> Pairs:
    """Return the middle frames and slices of pairs (n, nt, nz, ny, nx), as many as a preset takes."""
    if not fits(pairs, preset):
        raise ValueError(
            f"preset {preset.name} takes {preset.frames} frames of {preset.depth} slices, and these pairs have "
            f"{pairs.u.shape[1]} of {pairs.u.shape[2]}: make pairs of more, or choose another preset"
        )
    first_t, first_z = (pairs.u.shape[1] - preset.frames) // 2, (pairs.u.shape[2] - preset.depth) // 2
    middle = np.s_[:, first_t : first_t + preset.frames, first_z : first_z + preset.depth]
    return Pairs(u=pairs.u[middle], v=pairs.v[middle])


def fits(pairs: Pairs, preset: Preset) -> bool:
    """Return whether pairs have the frames and slices that a preset takes."""
    return preset.frames <= pairs.u.shape[1] and preset.depth <= pairs.u.shape[2]


class Automatic:
    """Train candidates in turn, for equal CPU time, judge them on the same held-out pairs, and choose.

        automatic = Automatic(seed=0, pace=lambda: Pace(...))     # asked once, when it chooses
        while automatic.choice is None:
            automatic.train_step(buffer.sample(32))               # pairs (n, 3, 3, ny, nx): one step of one candidate
            automatic.judge(held_out)                             # whenever there are pairs that are never trained on
        model = automatic.choice.model                            # goes on; give it cut(pairs, model.preset)

    Until then `leader` is the best one so far. Pairs of fewer frames or slices leave out the candidates that need them.
    """

    def __init__(
        self,
        presets: Sequence[Preset | str] = CANDIDATES,
        *,
        seed: int,
        pace: Callable[[], Pace],
        cpu_s: float = TRIAL_CPU_S,
        clock: Callable[[], float] = time.thread_time,
        make: Callable[[Preset], Model] | None = None,
        inference_s: Callable[[Model, Pace], float] | None = None,
    ) -> None:
        """Begin; clock: CPU seconds of this thread; make, inference_s: how models are made and timed."""
        if not presets:
            raise ValueError("there are no presets to choose from: give one at least")
        named = [preset_named(preset) if isinstance(preset, str) else preset for preset in presets]
        make = make or (lambda preset: make_model(preset, seed=seed))
        self._candidates = [_Candidate(make(preset)) for preset in named]
        self._pace = pace
        self._cpu_s = cpu_s
        self._clock = clock
        self._inference_s = inference_s or (lambda model, pace: inference_s_of(model, pace, clock))
        self._fitted = False
        self._held_out: deque[Pairs] = deque(maxlen=JUDGED)
        self._region: deque[Pairs] = deque(maxlen=JUDGED)
        self.choice: Choice | None = None
        """The outcome; None while candidates are tried."""
        self.leader: Model = self._candidates[0].model
        """The model that was best on the newest held-out pairs."""

    @property
    def step(self) -> int:
        """Return how many steps were taken, by all candidates."""
        return sum(candidate.model.step for candidate in self._candidates)

    def train_step(self, pairs: Pairs) -> float:
        """Let the candidate that has used least time take a step; return its loss; raise ValueError as models do."""
        self._leave_out_unfit(pairs)
        candidate = min(self._candidates, key=lambda one: one.used_s)
        untried, began = candidate.model.step == 0, self._clock()
        try:
            loss = candidate.model.train_step(cut(pairs, candidate.preset))
        finally:
            # A network's first step takes many times as long, whatever the network.
            candidate.used_s += 0.0 if untried and candidate.model.step else self._clock() - began
        self._decide()
        return loss

    def judge(self, held_out: Pairs, region: Pairs | None = None) -> None:
        """Take pairs that are never trained on; held_out: of the slices on show; region: of anywhere in the sample."""
        if self.choice is not None:
            return
        self._leave_out_unfit(held_out)
        self._held_out.append(held_out)
        if region is not None:
            self._region.append(region)
        self.leader = min(self._candidates, key=lambda one: _mean_accuracy(one.model, [held_out])).model
        self._decide()

    def _leave_out_unfit(self, pairs: Pairs) -> None:
        if self._fitted:
            return
        fitting = [candidate for candidate in self._candidates if fits(pairs, candidate.preset)]
        if not fitting:
            cut(pairs, self._candidates[0].preset)
        self._candidates, self._fitted = fitting, True
        self.leader = fitting[0].model

    def _decide(self) -> None:
        share_s = self._cpu_s / len(self._candidates)
        if self.choice is not None or not self._held_out or any(one.used_s < share_s for one in self._candidates):
            return
        pace = self._pace()
        for candidate in self._candidates:
            candidate.accuracy = _mean_accuracy(candidate.model, self._held_out)
        chosen, why = self._best_in_time(pace)
        buffer = buffer_for(pace, of=self._held_out[-1], preset=chosen.preset)
        fraction, where = self._region_for(chosen)
        reason = f"auto chose {chosen.preset.name}: {why}; buffer {buffer}; {where}"
        self.choice = Choice(
            preset=chosen.preset, model=chosen.model, buffer=buffer, whole_fraction=fraction, reason=reason
        )
        self.leader = chosen.model
        self._candidates = [chosen]
        logger.info(reason)

    def _best_in_time(self, pace: Pace) -> tuple[_Candidate, str]:
        """Return the best candidate whose updates come in time, the simplest of equals, and why."""
        left, update_s = list(self._candidates), {}
        while left:
            candidate = _simplest_of_best(left)
            seconds = pace.slice_s * candidate.slices + self._inference_s(candidate.model, pace)
            if seconds * pace.updates_per_s <= 1:
                return candidate, _why(candidate, self._candidates, left, pace)
            update_s[candidate.preset.name] = seconds
            left.remove(candidate)
        fastest = min(self._candidates, key=lambda one: update_s[one.preset.name])
        return fastest, (
            f"the fastest, with {1 / update_s[fastest.preset.name]:.1f} updates a second, since none makes "
            f"{pace.updates_per_s:g} (slices.updates_per_s)"
        )

    def _region_for(self, chosen: _Candidate) -> tuple[float, str]:
        """Return the part of the patches that the whole region gets, and why."""
        if not self._region:
            return MIXED, "patches mixed"
        whole = _mean_accuracy(chosen.model, self._region)
        figures = f"(accuracy {chosen.accuracy:.3f} in the slices on show, {whole:.3f} anywhere)"
        if whole > chosen.accuracy + REGION_MARGIN:
            return MORE_WHOLE, f"half of the patches from anywhere {figures}"
        if whole < chosen.accuracy - REGION_MARGIN:
            return NEAR, f"patches near the slices on show {figures}"
        return MIXED, f"patches mixed {figures}"


def inference_s_of(model: Model, pace: Pace, clock: Callable[[], float] = time.thread_time) -> float:
    """Return the CPU seconds that denoising every slice on show takes, from the largest of them."""
    if not pace.slice_shapes:
        return 0.0
    preset, largest = model.preset, max(pace.slice_shapes, key=math.prod)
    denoiser = make_denoiser(preset)
    weights = model.snapshot()
    denoiser.load(weights)
    # Of an empty slab nothing is taken away, which is how bfloat16's error is measured: it would be found too large.
    shape = (preset.frames, preset.depth, *largest)
    slab = np.random.default_rng(0).normal(weights.mean, weights.scale, shape).astype(np.float32)
    # The first one makes room, and chooses algorithms and precision.
    denoiser.apply(slab)
    began = clock()
    denoiser.apply(slab)
    return (clock() - began) * sum(math.prod(shape) for shape in pace.slice_shapes) / math.prod(largest)


def buffer_for(pace: Pace, *, of: Pairs, preset: Preset) -> int:
    """Return how many pairs to keep: as many as are made while one window comes, within bounds.

    of: pairs of the shape that the pace was measured with; a pair takes as long as it has slices in a frame. The frames
    stay: those are the reconstruction's, whatever preset is chosen.
    """
    pairs = pace.pairs_per_s * of.u.shape[2] / preset.depth * pace.window_s
    return int(np.clip(pairs if math.isfinite(pairs) else FEWEST_PAIRS, FEWEST_PAIRS, MOST_PAIRS))


def _mean_accuracy(model: Model, batches: Sequence[Pairs] | deque[Pairs]) -> float:
    """Return the mean accuracy; infinite before there is one."""
    found = [model.accuracy(cut(batch, model.preset)).value for batch in batches]
    found = [accuracy for accuracy in found if math.isfinite(accuracy)]
    return sum(found) / len(found) if found else math.inf


def _simplest_of_best(candidates: Sequence[_Candidate]) -> _Candidate:
    """Return the candidate that looks at fewest slices, then the first, of those as good as the best."""
    best = min(candidate.accuracy for candidate in candidates)
    equals = [one for one in candidates if one.accuracy <= best + TIE]
    return min(equals, key=lambda one: one.slices)


def _why(chosen: _Candidate, tried: Sequence[_Candidate], in_time: Sequence[_Candidate], pace: Pace) -> str:
    """Say why it was chosen, of those that were tried and of those among them that are in time."""
    others = ", ".join(f"{one.preset.name} {one.accuracy:.3f}" for one in tried if one is not chosen)
    if not others:
        return "there was no other to try"
    if math.isinf(chosen.accuracy):
        return "the simplest, since no held-out accuracy could be told"
    word = (
        "best" if chosen.accuracy <= min(one.accuracy for one in in_time) else "as good as the best, and it is simpler,"
    )
    limit = f"of those that make {pace.updates_per_s:g} updates a second " if len(in_time) < len(tried) else ""
    return (
        f"{limit}its held-out accuracy, {chosen.accuracy:.3f}, is {word} after {chosen.used_s:.1f} s of each ({others})"
    )
