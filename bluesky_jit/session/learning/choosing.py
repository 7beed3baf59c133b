"""Which model learns in a run: a fresh one, one that goes on from an earlier run's, or the best of several presets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bluesky_jit.learn.automatic import Automatic, Pace, cut
from bluesky_jit.learn.model import Model, make_model
from bluesky_jit.learn.presets import Preset, preset_named
from bluesky_jit.learn.registry import Entry
from bluesky_jit.learn.warm_start import WarmStart
from bluesky_jit.messages import Pairs

AUTO = "auto"
"""The preset that stands for trying several."""
TRIED_FRAMES, TRIED_DEPTH = 3, 3
"""Frames and slices that pairs have while presets are tried: as many as the largest candidate takes."""
BUFFER, WHOLE_FRACTION, REASON = "chosen_buffer", "chosen_whole_fraction", "chosen_reason"
"""Beside a model's own state: what was settled for."""


def require_preset(name: str) -> None:
    """Raise ValueError for a preset that does not exist."""
    if name != AUTO:
        preset_named(name)


def frames_of(name: str) -> int:
    """Return how many time frames a preset takes, at most."""
    return TRIED_FRAMES if name == AUTO else preset_named(name).frames


def depth_of(name: str) -> int:
    """Return how many slices a preset takes, at most."""
    return TRIED_DEPTH if name == AUTO else preset_named(name).depth


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Say what was settled for: a preset, and with preset "auto" the buffer and the part of patches from anywhere."""

    preset: Preset
    buffer: int | None = None
    whole_fraction: float | None = None


class Choosing:
    """Hold the model that learns, and the others for as long as they are compared. It belongs to the trainer stage."""

    def __init__(
        self,
        name: str,
        *,
        seed: int,
        pace: Callable[[], Pace],
        nearest: Callable[[Preset], Entry | None],
        measure: Callable[[Pairs], None],
    ) -> None:
        """Begin.

        pace: what a choice has to keep up with; nearest: finds an earlier run's model; measure: takes the first pairs
        that are learned from, before it is asked.
        """
        self._name = name
        self._seed = seed
        self._pace = pace
        self._nearest = nearest
        self._measure = measure
        self.start_afresh()

    def start_afresh(self) -> None:
        """Forget everything, and choose again."""
        self.reason = ""
        """What was chosen, and why, when there was a choice."""
        self._automatic: Automatic | None = None
        self._warm_start: WarmStart | None = None
        self._chosen: Chosen | None = None
        self._measured = self._begun = False
        if self._name == AUTO:
            self._automatic = Automatic(seed=self._seed, pace=self._pace)
            self._model = self._automatic.leader
        else:
            self._model = make_model(self._name, seed=self._seed)

    @property
    def model(self) -> Model:
        """Return the model that learns, or while several are compared the best of them."""
        trial = self._automatic or self._warm_start
        return trial.leader if trial else self._model

    @property
    def is_trying(self) -> bool:
        """Say whether presets are being compared: nothing is shown of them."""
        return self._automatic is not None

    def train_step(self, pairs: Pairs) -> float:
        """Take one step and return its loss; raise ValueError for pairs that cannot be learned from."""
        if not self._measured:
            self._measured = True
            self._measure(pairs)
        if not self._begun and self._automatic is None:
            self._begun = True
            entry = self._nearest(self._model.preset)
            self._warm_start = WarmStart(self._model, entry) if entry else None
        trial = self._automatic or self._warm_start
        if trial:
            return trial.train_step(pairs)
        return self._model.train_step(cut(pairs, self._model.preset))

    def judge(self, held_out: Pairs, anywhere: Pairs | None = None) -> None:
        """Compare by pairs that are never trained on; anywhere: of places where no slice is shown."""
        if self._automatic:
            self._automatic.judge(held_out, anywhere)
        elif self._warm_start:
            self._warm_start.judge(held_out)

    def settled(self) -> Chosen | None:
        """Return what was settled for, once: when a comparison has ended since this was last asked."""
        settled: Chosen | None = None
        if self._automatic is not None and (choice := self._automatic.choice) is not None:
            self._automatic, self._begun = None, True
            self._model, self.reason = choice.model, choice.reason
            settled = Chosen(preset=choice.preset, buffer=choice.buffer, whole_fraction=choice.whole_fraction)
        if self._warm_start is not None and (start := self._warm_start.start) is not None:
            self._warm_start = None
            self._model, self.reason = start.model, start.reason
            settled = Chosen(preset=start.model.preset)
        self._chosen = settled or self._chosen
        return settled

    @property
    def chosen(self) -> Chosen | None:
        """Return what was settled for last, or before the training that goes on was interrupted."""
        return self._chosen

    def state_dict(self) -> dict[str, Any]:
        """Return what learning goes on from: the model's state, and what was settled for."""
        chosen = self._chosen
        return {
            **self.model.state_dict(),
            BUFFER: chosen.buffer if chosen else None,
            WHOLE_FRACTION: chosen.whole_fraction if chosen else None,
            REASON: self.reason,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned: nothing is compared again.

        Raises ValueError or RuntimeError for a state that does not fit, and leaves everything as it was.
        """
        model = make_model(str(state["preset"]) if self._name == AUTO else self._name, seed=self._seed)
        model.load_state_dict(dict(state))
        buffer, whole_fraction, before = (state.get(name) for name in (BUFFER, WHOLE_FRACTION, REASON))
        self._automatic = self._warm_start = None
        self._begun, self._model = True, model
        self._chosen = Chosen(preset=model.preset, buffer=buffer, whole_fraction=whole_fraction)
        since = f"learning goes on from a checkpoint of step {model.step}"
        self.reason = f"{before}; {since}" if before else since
