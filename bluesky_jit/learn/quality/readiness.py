"""Whether denoised slices may be shown, and why."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from bluesky_jit.learn.quality.accuracy import BEATS_RAW, SIGMAS, SUSPICIOUS, Accuracy
from bluesky_jit.learn.quality.residual import ResidualFigure


class Readiness:
    """Decide whether denoised slices may be shown, from figures as they come, and say why in words.

    Four kinds of figure: the guard region (often, patches that are never trained on), unseen windows (now and then,
    projections that were never trained on: what counts), whole slices, and residuals, the last two by slice's name. To
    become ready, every accuracy must lie below the limit by `SIGMAS` of its uncertainty, the guard's `evaluations`
    times running, and no residual may speak against it; any accuracy at or above the limit takes readiness back, and
    so does a guard figure older than `oldest_s`. Before there is an unseen figure, or when the last good one is older
    than `oldest_unseen_s`, readiness is provisional: the guard figure rules and the reason says so. A bad figure counts
    until a better one comes, however old.
    """

    def __init__(
        self,
        *,
        limit: float = BEATS_RAW,
        suspicious: float = SUSPICIOUS,
        evaluations: int = 3,
        oldest_s: float = 30.0,
        oldest_unseen_s: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._suspicious = suspicious
        self._evaluations = evaluations
        self._oldest_s = oldest_s
        self._oldest_unseen_s = oldest_unseen_s
        self._clock = clock
        self.reset()

    def reset(self, reason: str = "waiting for a held-out accuracy") -> None:
        """Start again, as after a jump or for a new run."""
        self._guard = _Track(self._clock)
        self._unseen = _Track(self._clock)
        self._whole: dict[str, _Track] = {}
        self._residuals: dict[str, ResidualFigure] = {}
        self._passed = 0
        self.ready = False
        self.provisional = True
        self.reason = reason

    @property
    def held_out(self) -> float:
        """Return the accuracy that counts: on unseen projections, or in the guard region before there is one."""
        return self._guard.value if self._is_provisional() else self._unseen.value

    def update(self, figure: Accuracy) -> bool:
        """Take the accuracy in the guard region and return whether denoised slices may be shown."""
        self._guard.add(figure)
        self._passed = self._passed + 1 if self._clears(self._guard) else 0
        return self.judge()

    def unseen(self, figure: Accuracy) -> bool:
        """Take the accuracy on projections that were never trained on."""
        self._unseen.add(figure)
        return self.judge()

    def whole(self, name: str, figure: Accuracy) -> bool:
        """Take the accuracy over a whole slice on show; the newest of each name counts."""
        self._whole.setdefault(name, _Track(self._clock)).add(figure)
        return self.judge()

    def residual(self, name: str, figure: ResidualFigure) -> bool:
        """Take the residual of a slice on show; the newest of each name counts, one that told nothing is left out."""
        if figure.judged:
            self._residuals[name] = figure
        return self.judge()

    def forget(self, name: str) -> bool:
        """Forget the figures of a slice that is no longer shown or was moved."""
        self._whole.pop(name, None)
        self._residuals.pop(name, None)
        return self.judge()

    def judge(self, *, learning: bool = True) -> bool:
        """Judge again, as time goes by; while learning is paused the weights stay, and figures do not grow old."""
        if self._guard.empty:
            return self.ready
        self.provisional = self._is_provisional()
        objection = self._objection(learning=learning)
        self.ready = objection == ""
        self.reason = objection or self._praise()
        return self.ready

    def _objection(self, *, learning: bool) -> str:
        """Return why the raw slice is shown, or nothing."""
        guard = self._guard
        if not math.isfinite(guard.value):
            return "the held-out accuracy is not a number: are there projections in both splits?"
        if learning and guard.age_s > self._oldest_s:
            return (
                f"the held-out accuracy is {guard.age_s:.0f} s old, so the raw slice is shown: "
                "are new pairs still being made?"
            )
        accuracies = [("held-out accuracy", guard), ("accuracy on projections never trained on", self._unseen)]
        accuracies += [(f"{name}: accuracy of the whole slice", track) for name, track in self._whole.items()]
        objections = (self._too_high(what, track) for what, track in accuracies)
        spoken = (f"{name}: {it.verdict}" for name, it in self._residuals.items() if it.findings)
        # The first of each says enough: how bad, and what is wrong.
        found = [next(filter(None, objections), ""), next(spoken, "")]
        if any(found):
            return "; ".join(filter(None, found))
        if not self.ready and self._passed < self._evaluations:
            return f"held-out accuracy {guard.value:.3f}: {self._passed} of {self._evaluations} evaluations passed"
        return ""

    def _too_high(self, what: str, track: _Track) -> str:
        if not track.value >= self._limit - (0 if self.ready else SIGMAS * track.uncertainty):
            return ""
        if track.value >= self._limit:
            return f"{what} {track.value:.3f} is not below {self._limit:.2f}: the raw slice is better"
        if math.isinf(track.uncertainty):
            return f"{what} {track.value:.3f} is of too few points for its uncertainty to be known"
        return (
            f"{what} {track.value:.3f} ± {track.uncertainty:.3f} must fall below "
            f"{self._limit - SIGMAS * track.uncertainty:.3f} to be surely better than the raw slice"
        )

    def _praise(self) -> str:
        """Return why the denoised slice is shown."""
        value = self.held_out
        where = "in the guard region" if self.provisional else "on projections never trained on"
        if value < self._suspicious:
            return (
                f"accuracy {value:.3f} {where} is below ideal, so do not trust it: the halves differ by more than "
                "noise (motion, few angles), or these projections were learnt by heart"
            )
        if not self.provisional:
            return f"accuracy {value:.3f} {where} is below {self._limit:.2f}: better than the raw slice"
        waiting = "none yet" if self._unseen.empty else f"the last is {self._unseen.age_s:.0f} s old"
        return (
            f"provisional: accuracy {value:.3f} {where} is below {self._limit:.2f}, better than the raw slice; "
            f"on projections never trained on there is {waiting}"
        )

    def _clears(self, track: _Track) -> bool:
        return track.value < self._limit - SIGMAS * track.uncertainty

    def _is_provisional(self) -> bool:
        return not math.isfinite(self._unseen.value) or self._unseen.age_s > self._oldest_unseen_s


class _Track:
    """Keep the newest value of one accuracy, and when it came."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at_s = math.nan
        self.empty = True
        self.value = self.uncertainty = math.nan

    def add(self, figure: Accuracy) -> None:
        self.value, self.uncertainty = figure.value, figure.uncertainty
        self._at_s = self._clock()
        self.empty = False

    @property
    def age_s(self) -> float:
        return self._clock() - self._at_s
