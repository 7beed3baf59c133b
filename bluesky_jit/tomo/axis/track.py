"""Follow the rotation axis from turn to turn."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

from bluesky_jit.tomo.axis.estimate import AxisEstimate, part_within

DRIFT_PX = 0.1
"""How far an axis may wander from turn to turn, standard deviation: beyond it an estimate is more noise than news."""
JUMP = 4.0
"""An estimate so many standard deviations away is of an axis that was moved, if it can be trusted by itself."""


class AxisTracker:
    """Combine one estimate a turn with those before (a Kalman filter of an axis that wanders)."""

    def __init__(self) -> None:
        self._state: AxisEstimate | None = None

    def update(self, estimate: AxisEstimate) -> AxisEstimate:
        """Take a turn's estimate; return what is known of the axis now. Doubtful ones count for less, or not at all."""
        state = self._state
        if state is None or not state.trusted:
            self._state = estimate if state is None or estimate.confidence >= state.confidence else state
            return self._state
        prior = state.error_px**2 + DRIFT_PX**2
        if estimate.confidence <= 0:
            self._state = _sure_within(replace(state, reason=estimate.reason), sqrt(prior), state.confidence)
            return self._state
        # A doubtful estimate is one of larger error.
        measured = (estimate.error_px / estimate.confidence) ** 2
        apart = estimate.column - state.column
        if abs(apart) > JUMP * sqrt(prior + measured):
            self._state = estimate if estimate.trusted else _sure_within(state, sqrt(prior), state.confidence)
            return self._state
        gain = prior / (prior + measured)
        combined = replace(
            estimate,
            column=state.column + gain * apart,
            offset_mm=state.offset_mm + gain * (estimate.offset_mm - state.offset_mm),
        )
        self._state = _sure_within(combined, sqrt((1 - gain) * prior), max(state.confidence, estimate.confidence))
        return self._state


def _sure_within(estimate: AxisEstimate, error_px: float, right_place: float) -> AxisEstimate:
    return replace(estimate, error_px=error_px, confidence=right_place * part_within(error_px))
