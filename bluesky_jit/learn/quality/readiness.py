"""Whether denoised slices may be shown, and why."""

from __future__ import annotations

import math

from bluesky_jit.learn.quality.accuracy import BEATS_RAW, SUSPICIOUS


class Readiness:
    """Decide whether denoised slices may be shown: the held-out accuracy must be below 0.75.

    It takes `evaluations` running below the limit less the margin to become ready, and one at or above the limit to
    stop.
    """

    def __init__(self, *, limit: float = BEATS_RAW, margin: float = 0.03, evaluations: int = 3) -> None:
        self._limit = limit
        self._margin = margin
        self._evaluations = evaluations
        self.reset()

    def reset(self, reason: str = "waiting for a held-out accuracy") -> None:
        """Start again, as after a jump or for a new run."""
        self.ready = False
        self.reason = reason
        self.held_out = math.nan
        self._passed = 0

    def update(self, held_out: float) -> bool:
        """Take the accuracy of held-out pairs and return whether denoised slices may be shown."""
        self.held_out = held_out
        enter = self._limit - self._margin
        if not math.isfinite(held_out):
            self.ready, self._passed = False, 0
            self.reason = "the held-out accuracy is not a number: are there projections in both splits?"
        elif held_out >= self._limit:
            self.ready, self._passed = False, 0
            self.reason = f"held-out accuracy {held_out:.3f} is not below {self._limit:.2f}: the raw slice is better"
        elif held_out >= enter and not self.ready:
            self._passed = 0
            self.reason = f"held-out accuracy {held_out:.3f} must fall below {enter:.2f}"
        else:
            self._passed += 1
            self.ready = self.ready or self._passed >= self._evaluations
            self.reason = self._passing_reason(held_out)
        return self.ready

    def _passing_reason(self, held_out: float) -> str:
        if not self.ready:
            return f"held-out accuracy {held_out:.3f}: {self._passed} of {self._evaluations} evaluations passed"
        if held_out < SUSPICIOUS:
            return (
                f"held-out accuracy {held_out:.3f} is below ideal, so do not trust it: "
                "the halves differ by more than noise (motion, few angles)"
            )
        return f"held-out accuracy {held_out:.3f} is below {self._limit:.2f}: better than the raw slice"
