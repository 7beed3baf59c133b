"""Notice degrees that were taken for radians, and radians for degrees, before slices are made of them."""

from __future__ import annotations

import numpy as np

from bluesky_jit.messages import ProjectionBlock

STEPS = 8
"""A stage that starts may take some uneven steps; the median of as many as these is a step."""
ALIKE = 0.05
"""A step that is 57.3 times too large or too small, to this part of it, has the other unit."""
TURNS_ALIKE = 2e-3
"""Whole half turns, in the wrong unit, come out as whole as this."""
DEGREES = 180 / np.pi


class WrongAngleUnit(ValueError):
    """Say that a run's angles have another unit than they are taken for."""

    reason = "angle unit"


class AngleUnit:
    """Compare the steps of a run's angles with the number of projections in a turn. One thread uses it."""

    def __init__(self, angles_per_turn: int, scan_mode: str = "sequential") -> None:
        self._expected_rad = 2 * np.pi / angles_per_turn
        self._in_order = scan_mode == "sequential"
        self._acquisition: list[int] = []
        self._angles: list[float] = []

    def check(self, block: ProjectionBlock) -> None:
        """Take a block of projections; raise WrongAngleUnit as soon as the steps tell, and from then on."""
        if not self._in_order or block.kind != "projection":
            return
        room = STEPS + 1 - len(self._angles)
        self._acquisition += block.acquisition[:room].tolist()
        self._angles += block.angles_rad[:room].tolist()
        if len(self._angles) <= STEPS:
            return
        # Those that came late have their place in the sequence.
        order = np.argsort(self._acquisition)
        angles, acquisition = np.array(self._angles)[order], np.array(self._acquisition)[order]
        steps = np.diff(angles) / np.maximum(np.diff(acquisition), 1)
        step = float(np.median(np.abs(steps)))
        ratio = step / self._expected_rad
        for factor, taken_for, meant in ((DEGREES, "radians", "degrees"), (1 / DEGREES, "degrees", "radians")):
            if abs(ratio / factor - 1) < ALIKE:
                raise WrongAngleUnit(
                    f"the angles' steps are {step:.4g} rad ({step * DEGREES:.4g}°) and should be "
                    f"{self._expected_rad:.4g} rad ({self._expected_rad * DEGREES:.4g}°): it looks as if they were "
                    f"{meant} taken for {taken_for}; correct the units of the angle's data key, or intake.angle_unit"
                )


def require_radians(angles_rad: np.ndarray, where: str) -> None:
    """Raise WrongAngleUnit when a stored scan's angles (n,) are whole half turns in the other unit only."""
    n = len(angles_rad)
    if n <= STEPS:
        return
    reach = abs(float(angles_rad[-1] - angles_rad[0]))
    # With and without the last step: some scans measure both ends of the arc.
    for span in (reach, reach * n / (n - 1)):
        for half_turn, taken_for, meant in ((180.0, "radians", "degrees"), (np.pi / DEGREES, "degrees", "radians")):
            half_turns = span / half_turn
            if 1 <= round(half_turns) <= 2 and abs(half_turns / round(half_turns) - 1) < TURNS_ALIKE:
                raise WrongAngleUnit(
                    f"{where}: {n} angles reach over {span:.4g} rad ({span * DEGREES:.4g}°), as if they were {meant} "
                    f"taken for {taken_for}; correct the attribute `units` of the angles"
                )
