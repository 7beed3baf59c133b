"""When images reach a client: what a person at the beamline sees, by a monitor on the PV and by no figure of ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from bluesky_jit.cli.watch import Watch

NOT_READY_S = 1.0
"""Where images are left out for longer, they were not late: the denoiser was not ready."""
SAME_S = 1e-3
"""Time stamps no farther apart are the same: on their way they pass through formats that round to a microsecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Say when an image reached the client, and the time stamp of the newest frame in it, both in Unix seconds."""

    arrived_s: float
    frame_time_s: float


class Arrivals:
    """Follow an image's PV over pvAccess and note what arrives, from `with` on."""

    def __init__(self, watch: Watch, name: str, *, clock: Callable[[], float] = time.time) -> None:
        self.seen: list[Arrival] = []
        self._watch, self._name, self._clock = watch, name, clock

    def __enter__(self) -> Self:
        self._following = self._watch.follow_image(self._name, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._following.close()

    def _note(self, data_time_s: float) -> None:
        # What is shown before the first image has no time.
        if data_time_s > 0:
            self.seen.append(Arrival(arrived_s=self._clock(), frame_time_s=data_time_s))


def delays_s(frame_times_s: np.ndarray, arrivals: Sequence[Arrival], *, within_s: float = np.inf) -> np.ndarray:
    """Return, for each frame, how long after its time stamp the first image with it arrived, NaN where none did.

    frame_times_s: (n,). An image has all frames up to its newest, of which it shows those taken within_s before that.
    """
    if not arrivals:
        return np.full(len(frame_times_s), np.nan)
    arrived = np.array([arrival.arrived_s for arrival in arrivals])
    # An image that shows less than one before it shows no frame first.
    newest = np.maximum.accumulate([arrival.frame_time_s for arrival in arrivals]) + SAME_S
    first = np.searchsorted(newest, frame_times_s)
    too_old = np.append(newest, np.nan)[first] - frame_times_s > within_s + SAME_S
    return np.where(too_old, np.nan, np.append(arrived, np.nan)[first] - frame_times_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """Hold how long frames took to be on show, in ms: what 50, 95 and 99 of 100 stayed below.

    frames: how many there were; unseen: how many of them were never on show, which the rest does not count.
    """

    frames: int
    unseen: int
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @classmethod
    def of(cls, frame_times_s: np.ndarray, arrivals: Sequence[Arrival], *, within_s: float = np.inf) -> Delays:
        """Summarise the delays of frames; raise RuntimeError when none of them was shown."""
        delays = 1e3 * delays_s(frame_times_s, arrivals, within_s=within_s)
        seen = delays[np.isfinite(delays)]
        if not len(seen):
            raise RuntimeError(f"none of {len(delays)} frames was ever shown: see the log of `bluesky-jit serve`")
        p50, p95, p99 = np.percentile(seen, (50, 95, 99))
        unseen = len(delays) - len(seen)
        return cls(frames=len(delays), unseen=unseen, p50_ms=float(p50), p95_ms=float(p95), p99_ms=float(p99))

    def complete(self) -> Delays:
        """Return these; raise RuntimeError when one of the frames was never shown."""
        if self.unseen:
            raise RuntimeError(
                f"{self.unseen} of {self.frames} frames were never shown: see the log of `bluesky-jit serve`"
            )
        return self
