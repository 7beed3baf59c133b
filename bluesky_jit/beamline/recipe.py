"""What a tomography scan shall take: values that are checked before anything moves."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bluesky_jit.beamline.angles import ORDERS, Order, angles_deg
from bluesky_jit.beamline.stage import Turning


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Say how many frames of which kind, how long each, and in which order the angles."""

    turns: float
    angles_per_turn: int
    exposure_s: float
    period_s: float | None
    darks: int
    flats: int
    flats_after: int
    order: Order

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(f"order is {self.order!r}: give one of {', '.join(ORDERS)}")
        if self.angles_per_turn < 2:
            raise ValueError(f"angles_per_turn is {self.angles_per_turn}: give at least 2")
        if not (math.isfinite(self.turns) and self.projections >= 1):
            raise ValueError(f"turns is {self.turns}: give a positive number of turns, such as 1 or 2.5")
        if not (math.isfinite(self.exposure_s) and self.exposure_s > 0):
            raise ValueError(f"exposure_s is {self.exposure_s}: give a positive number of seconds")
        if self.period_s is not None and not self.period_s >= self.exposure_s:
            raise ValueError(
                f"period_s is {self.period_s}, shorter than the exposure of {self.exposure_s} s: give a longer period"
            )
        for name in ("darks", "flats", "flats_after"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give a number of frames, or 0 for none")

    @property
    def projections(self) -> int:
        return round(self.turns * self.angles_per_turn)

    @property
    def angles_deg(self) -> np.ndarray:
        """Return float64 (projections,) degrees in [0, 360), in the order of taking them."""
        return angles_deg(self.order, self.turns, self.angles_per_turn)

    def turning(self, period_s: float | None = None) -> Turning:
        """Return the turning that meets one angle in each period (default: the one asked for)."""
        period_s = max(self.exposure_s, self.period_s or 0.0, period_s or 0.0)
        return Turning(speed_deg_s=360.0 / (self.angles_per_turn * period_s), arc_deg=360.0 * self.turns)

    def to_metadata(self) -> dict[str, Any]:
        return asdict(self)
