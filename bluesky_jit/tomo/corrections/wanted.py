"""What is corrected in every frame, beside darks and flats."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

MOST_COEFFICIENTS = 6
"""Of a hardening polynomial: measured curves of thickness have rarely more points than would fix as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrections:
    """Say what is corrected in every frame; with its defaults, nothing.

    zinger_threshold: excess over the surrounding pixels, as part of the flat, from which on a pixel of air is a zinger
    (under the sample it falls with the square root of the transmission, as photon noise does). air_columns: columns at
    either side of the detector (in an extended field, at the long side) that see air in every frame, from which the
    beam's drift is read. delta_beta: refractive decrement over absorption index of the one material that Paganin's
    phase retrieval assumes; it needs energy_kev, and propagation_mm (sample to detector) in a parallel beam.
    hardening: coefficients c1, c2, … of the polynomial c1·p + c2·p² + … that takes a measured line integral p to what
    one energy would have given. ring_width: the widest ring in pixels that is taken out; ring_projections: how many
    projections its estimate remembers.
    """

    zinger_threshold: float = 0.0
    air_columns: int = 0
    delta_beta: float = 0.0
    energy_kev: float | None = None
    propagation_mm: float | None = None
    hardening: tuple[float, ...] = ()
    ring_width: int = 0
    ring_projections: int = 0

    def __post_init__(self) -> None:
        for name in ("zinger_threshold", "air_columns", "delta_beta", "ring_width", "ring_projections"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}: give a number above 0, or 0 to leave this correction out")
        for name in ("energy_kev", "propagation_mm"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}: give a positive number")
        if self.delta_beta and self.energy_kev is None:
            raise ValueError(
                f"delta_beta is {self.delta_beta} and energy_kev is not given: phase retrieval needs the photon "
                "energy, so give energy_kev, or 0 for delta_beta to leave it out"
            )
        if self.ring_width and not self.ring_projections:
            raise ValueError(
                f"ring_width is {self.ring_width} and ring_projections 0: give the number of projections, a turn or "
                "more, over which rings are estimated"
            )
        object.__setattr__(self, "hardening", tuple(float(c) for c in self.hardening))
        if not np.isfinite(self.hardening).all() or len(self.hardening) > MOST_COEFFICIENTS:
            raise ValueError(
                f"hardening is {self.hardening}: give at most {MOST_COEFFICIENTS} finite coefficients c1, c2, … of "
                "c1·p + c2·p² + …"
            )
        if self.hardening and self.hardening[0] <= 0:
            raise ValueError(
                f"hardening begins with {self.hardening[0]}: the first coefficient scales thin samples, so give a "
                "number above 0 (1 when they are right already)"
            )

    def to_metadata(self) -> dict[str, Any]:
        """Return what is corrected, for a run's records; what is left out is left out here too."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items() if value
        }
