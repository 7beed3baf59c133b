"""What takes slices to the network's units, found from the stream of pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from bluesky_jit.learn.presets import Preset
from bluesky_jit.learn.weights import Weights
from bluesky_jit.messages import Pairs

SETTLING_BATCHES = 10
"""Batches whose median is the normalisation at first."""
EVERY = 10
"""Of later batches one in so many is looked at: a median costs a twentieth of a step."""
SHARE = 1e-2
"""Share of each of those in it: a network does not like its input to be moved about."""


class Units(Protocol):
    """Say what takes slices to a network's units, (slice − mean) / scale, as found from the pairs so far."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def mean(self) -> float: ...

    @property
    def scale(self) -> float: ...

    @property
    def known(self) -> bool:
        """Whether there is anything to go by yet."""
        ...

    def starting_from(self, weights: Weights) -> Units:
        """Return those of these weights, to go by until something was seen."""
        ...

    def following(self, pairs: Pairs) -> Units:
        """Return those that have seen one more batch."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """Say what takes slices to the network's units: μ = median(u) and σ = std(u − v) / √2, the noise of one half."""

    mean: float = 0.0
    scale: float = 0.0
    first: tuple[tuple[float, float], ...] = ()
    """The mean and scale of each of the first batches."""
    later: int = 0
    """Batches after those."""
    fixed: bool = False
    """Whether it stays as it is, whatever comes."""

    @classmethod
    def of(cls, preset: Preset) -> Normalisation:
        """Make a preset's, before anything was seen."""
        return cls(mean=0.0, scale=1.0, fixed=True) if preset.normalisation == "none" else cls()

    def starting_from(self, weights: Weights) -> Normalisation:
        """Return that of these weights, to go by until something was seen."""
        return self if self.fixed else Normalisation(mean=weights.mean, scale=weights.scale)

    @property
    def known(self) -> bool:
        """Whether there is anything to go by yet."""
        return self.scale > 0

    def following(self, pairs: Pairs) -> Normalisation:
        """Return the normalisation that has seen one more batch; a spoilt batch among good ones hardly moves it."""
        if self.fixed:
            return self
        settling = len(self.first) < SETTLING_BATCHES
        if not settling and self.later % EVERY:
            return replace(self, later=self.later + 1)
        mean = float(np.median(pairs.u))
        scale = float(np.std(pairs.u.astype(np.float64) - pairs.v)) / math.sqrt(2)
        if scale == 0:
            raise ValueError("u and v differ by the same everywhere: there is no noise to learn from")
        if settling:
            first = (*self.first, (mean, scale))
            settled = np.median(first, axis=0)
            return Normalisation(mean=float(settled[0]), scale=float(settled[1]), first=first)
        return Normalisation(
            mean=self.mean + SHARE * (mean - self.mean),
            scale=self.scale + SHARE * (min(scale, 2 * self.scale) - self.scale),
            first=self.first,
            later=self.later + 1,
        )
