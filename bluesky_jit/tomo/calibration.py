"""Measured shifts of detector and sample, angle by angle: a stage that wobbles, a detector that is moved on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

TURN = 2 * np.pi


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Hold shifts measured over a turn; a shift that was not measured is empty, and means 0.

    angles_rad: where they were measured, in any order; detector_u_mm, detector_v_mm: the detector's further shift in
    its plane; sample_x_mm, sample_y_mm, sample_z_mm: the sample's shift in the laboratory. Between the angles, and
    across the end of the turn, shifts are interpolated linearly.
    """

    angles_rad: tuple[float, ...]
    detector_u_mm: tuple[float, ...] = ()
    detector_v_mm: tuple[float, ...] = ()
    sample_x_mm: tuple[float, ...] = ()
    sample_y_mm: tuple[float, ...] = ()
    sample_z_mm: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            values = tuple(float(value) for value in getattr(self, name))
            if not np.isfinite(values).all():
                raise ValueError(f"{name} of the calibration holds {values}: give finite numbers")
            object.__setattr__(self, name, values)
        n = len(self.angles_rad)
        if not n:
            raise ValueError("the calibration has no angles: give at least one, or leave the calibration out")
        for name in SHIFTS:
            if len(getattr(self, name)) not in (0, n):
                raise ValueError(
                    f"{name} of the calibration has {len(getattr(self, name))} values and there are {n} angles: "
                    "give one for each angle"
                )
        reach = max(self.angles_rad) - min(self.angles_rad)
        if reach > TURN:
            raise ValueError(
                f"the calibration's angles span {reach:g} rad, more than one turn: if they are degrees, give radians"
            )
        folded = np.sort(np.mod(self.angles_rad, TURN))
        if n > 1 and min(np.diff(folded).min(), folded[0] + TURN - folded[-1]) <= 0:
            raise ValueError("the calibration has an angle twice (0 and a full turn are the same): give each once")

    def shifts(self, name: str, angles_rad: np.ndarray) -> np.ndarray:
        """Return one kind of shift, float64 (n,) in mm, at angles (n,) of any turn."""
        values = getattr(self, name)
        if not values:
            return np.zeros(np.shape(angles_rad))
        return np.interp(angles_rad, self.angles_rad, values, period=TURN)

    def largest(self, name: str) -> float:
        """Return the largest size of one kind of shift, in mm."""
        return max((abs(value) for value in getattr(self, name)), default=0.0)

    def to_metadata(self) -> dict[str, list[float]]:
        """Return what JSON keeps; kinds of shift that were not measured are left out."""
        return {name: list(values) for name, values in asdict(self).items() if values}


SHIFTS = tuple(field.name for field in fields(Calibration) if field.name != "angles_rad")


def calibration_from_metadata(metadata: Mapping[str, Any]) -> Calibration:
    """Make the calibration that `to_metadata` described."""
    known = ("angles_rad", *SHIFTS)
    if unknown := sorted(set(metadata) - set(known)):
        raise ValueError(f"the calibration has {', '.join(map(repr, unknown))}: give {', '.join(known)}")
    if "angles_rad" not in metadata:
        raise ValueError(f"the calibration has no angles_rad among {', '.join(metadata) or 'nothing'}")
    return Calibration(**{name: tuple(values) for name, values in metadata.items()})
