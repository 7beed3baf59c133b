"""Hold frames of the tap that do not say what they are, until documents do."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import numpy as np

from bluesky_jit.intake.frame_count import SAME_S
from bluesky_jit.messages import InlineFrames


class HeldFrames:
    """Hold the newest frames by the detector's number and time stamp; the oldest give way and are read from files."""

    def __init__(self, most: int) -> None:
        self._frames: deque[tuple[int, float, np.ndarray]] = deque(maxlen=most)
        self.taken = 0
        """Frames that were put here, also those that gave way."""

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, message: InlineFrames) -> None:
        """Hold a message's frames."""
        self.taken += len(message.counts)
        self._frames.extend(
            zip(message.unique_ids.tolist(), message.frame_times_s.tolist(), message.counts, strict=True)
        )

    def find(self, unique_ids: np.ndarray, times_s: np.ndarray | None, wanted: np.ndarray) -> dict[int, np.ndarray]:
        """Return frames (n_v, n_u) by their place in unique_ids (n,), of those that are wanted, bool (n,)."""
        if not self._frames:
            return {}
        held: dict[int, list[tuple[float, np.ndarray]]] = {}
        for unique_id, time_s, counts in self._frames:
            held.setdefault(unique_id, []).append((time_s, counts))
        found = {}
        for place in np.flatnonzero(wanted).tolist():
            time_s = math.nan if times_s is None else float(times_s[place])
            for held_s, counts in held.get(int(unique_ids[place]), []):
                # Without times the newest of that number is it.
                if math.isnan(time_s) or abs(held_s - time_s) <= SAME_S:
                    found[place] = counts
        return found

    def forget(self, counts: Iterable[np.ndarray]) -> None:
        """Let go of frames that were found."""
        used = {id(frame) for frame in counts}
        if used:
            self._frames = deque((entry for entry in self._frames if id(entry[2]) not in used), self._frames.maxlen)

    def clear(self) -> None:
        """Let go of all that are held."""
        self._frames.clear()
