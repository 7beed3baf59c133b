"""The capacity queue of the paper: the newest pairs, drawn uniformly while new ones arrive; or no buffer at all.

One thread may push while another samples: each holds the lock for the copy of one batch (tens of microseconds).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bluesky_jit.messages import Pairs

WAITING = 128
"""Most pairs that wait where there is no buffer: four batches of the paper's, while one at a time is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferCounts:
    """Say what went through the buffer. The paper's n_reco and n_opt are what is pushed and sampled in a second."""

    buffered: int
    pushed: int
    sampled: int
    flushed: int
    missed: int
    """Pairs that were never drawn, since newer ones had taken their place: only where there is no buffer."""
    picks_per_pair: float
    """How often a pair is drawn, on average, while it is here."""
    age_s: float
    """Mean age of the pairs that are here."""


def require_usable(pairs: Pairs) -> None:
    """Refuse pairs that would spoil the weights: views of unlike shape, or numbers that are not finite."""
    if pairs.u.shape != pairs.v.shape or pairs.u.ndim != 5 or len(pairs) == 0:
        raise ValueError(f"u is {pairs.u.shape} and v {pairs.v.shape}: give both one shape (n, nt, nz, ny, nx), n ≥ 1")
    # A sum of finite float32 values is finite in float64, so one number tells of all.
    for name, values in (("u", pairs.u), ("v", pairs.v)):
        if not np.isfinite(np.sum(values, dtype=np.float64)):
            bad = int(np.count_nonzero(~np.isfinite(values)))
            raise ValueError(
                f"{bad} of {values.size} values of {name} are not finite: these pairs are not learnt from; "
                "look for dead flats or non-positive counts"
            )


def dihedral_permutations(ny: int, nx: int) -> np.ndarray:
    """Return int64 (8 or 4, ny·nx): where each point of a flipped or turned patch comes from.

    A square has eight symmetries; other rectangles keep their shape under four.
    """
    points = np.arange(ny * nx).reshape(ny, nx)
    kinds = [points, points.T] if ny == nx else [points]
    return np.stack(
        [flipped.ravel() for kind in kinds for flipped in (kind, kind[::-1], kind[:, ::-1], kind[::-1, ::-1])]
    )


def depth_permutations(nt: int, nz: int) -> np.ndarray:
    """Return int64 (2 or 1, nt·nz): where each plane of a slab comes from, as it is and turned over.

    The frames of a sequence stay in their order: what happens in a sample does not happen backwards.
    """
    planes = np.arange(nt * nz).reshape(nt, nz)
    return np.stack([kind.ravel() for kind in ([planes, planes[:, ::-1]] if nz > 1 else [planes])])


class PairBuffer:
    """Keep the newest `capacity` pairs and draw batches of them; with capacity 0, draw each once, in order.

    Each patch drawn is flipped or turned, slabs are turned over, and u and v swapped, at random: without that a small
    buffer is learnt by heart. Time frames stay in their order. Swap only views of equal noise (two splits).
    """

    def __init__(
        self,
        capacity: int,
        *,
        seed: int,
        augment: bool = True,
        swap: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if capacity < 0:
            raise ValueError(f"learn.buffer is {capacity}: give the pairs to keep, or 0 to draw each only once")
        self.capacity = capacity
        self._room = capacity or WAITING
        self._augment = augment
        self._swap = swap
        self._clock = clock
        self._rng = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._store = np.empty((0, 2, 0, 0), dtype=np.float32)  # (room, u or v, nt·nz, ny·nx)
        self._times = np.zeros(self._room)
        self._shape = (0, 0, 0, 0)
        self._permutations = np.empty((0, 0), dtype=np.int64)
        self._channels = np.empty((0, 0), dtype=np.int64)
        self._length = 0
        self._next = 0
        self._fresh = 0
        self._pushed = 0
        self._sampled = 0
        self._flushed = 0
        self._missed = 0

    def __len__(self) -> int:
        """Count the pairs that can be drawn."""
        return self._length

    def wants_pairs(self, picks_per_pair: float) -> bool:
        """Tell whether new pairs are of use: there is room, or those that are here were drawn that often on average.

        Without a buffer they are when none wait.
        """
        with self._lock:
            if not self.capacity:
                return self._length == 0
            return self._length < self.capacity or self._sampled >= picks_per_pair * (self._pushed - self.capacity)

    def push(self, pairs: Pairs) -> None:
        """Add pairs, in place of the oldest when full; a new shape of patch empties the buffer first."""
        require_usable(pairs)
        with self._lock:
            _, nt, nz, ny, nx = pairs.u.shape
            if (nt, nz, ny, nx) != self._shape:
                self._allocate((nt, nz, ny, nx))
            if not self.capacity:
                self._missed += max(0, self._length + len(pairs) - self._room)
            kept = slice(max(0, len(pairs) - self._room), None)
            u, v = pairs.u[kept], pairs.v[kept]
            rows = (self._next + np.arange(len(u))) % self._room
            self._store[rows, 0] = u.reshape(len(u), *self._store.shape[2:])
            self._store[rows, 1] = v.reshape(len(v), *self._store.shape[2:])
            self._times[rows] = self._clock()
            self._next = int(rows[-1] + 1) % self._room
            self._length = min(self._length + len(u), self._room)
            self._fresh = min(self._fresh + len(u), self._room)
            self._pushed += len(pairs)

    def sample(self, count: int) -> Pairs:
        """Draw pairs uniformly, with replacement, of one lonely pair too; without a buffer, the next ones that wait.

        Of these there may be fewer than asked for. Raises ValueError when there is none.
        """
        with self._lock:
            if self._length == 0:
                raise ValueError("the buffer is empty: push pairs before sampling")
            rows = self._rows_drawn(count)
            count = len(rows)
            ways = self._rng.integers(len(self._permutations) if self._augment else 1, size=count)
            over = self._rng.integers(len(self._channels) if self._augment else 1, size=count)
            swapped = self._rng.integers(2 if self._swap else 1, size=count)
            _, _, channels, points = self._store.shape
            # One gather does row, swap and symmetry: the flat place of every value.
            sides = rows[:, None] * 2 + (swapped[:, None] ^ np.arange(2))
            images = sides[:, :, None] * channels + self._channels[over][:, None]
            drawn = self._store.reshape(-1)[images[..., None] * points + self._permutations[ways][:, None, None, :]]
            self._sampled += count
            shape = self._shape
        drawn = drawn.reshape(count, 2, *shape)
        return Pairs(u=drawn[:, 0], v=drawn[:, 1])

    def fresh(self, limit: int = 32) -> Pairs | None:
        """Return the newest pairs since this was last asked, at most `limit` and as they came, or None.

        Whoever trains asks before each step, and so measures the accuracy on these before it has trained on them.
        """
        with self._lock:
            count, self._fresh = min(self._fresh, limit), 0
            if count == 0:
                return None
            rows = (self._next - count + np.arange(count)) % self._room
            newest = self._store[rows].reshape(count, 2, *self._shape)
        return Pairs(u=newest[:, 0], v=newest[:, 1])

    def flush(self) -> None:
        """Forget every pair."""
        with self._lock:
            self._forget()

    def counts(self) -> BufferCounts:
        """Return the counters."""
        with self._lock:
            return BufferCounts(
                buffered=self._length,
                pushed=self._pushed,
                sampled=self._sampled,
                flushed=self._flushed,
                missed=self._missed,
                picks_per_pair=self._sampled / self._pushed if self._pushed else float("nan"),
                age_s=self._clock() - float(self._times[self._rows()].mean()) if self._length else float("nan"),
            )

    def _rows(self) -> np.ndarray:
        """Return where the pairs are, the oldest first."""
        return (self._next - self._length + np.arange(self._length)) % self._room

    def _rows_drawn(self, count: int) -> np.ndarray:
        """Return where the next pairs to be drawn are; without a buffer they are gone with that."""
        if self.capacity:
            return self._rng.integers(self._length, size=count)
        rows = self._rows()[:count]
        self._length -= len(rows)
        self._fresh = min(self._fresh, self._length)
        return rows

    def _allocate(self, shape: tuple[int, int, int, int]) -> None:
        nt, nz, ny, nx = shape
        self._forget()
        self._store = np.zeros((self._room, 2, nt * nz, ny * nx), dtype=np.float32)
        self._shape = shape
        self._permutations = dihedral_permutations(ny, nx)
        self._channels = depth_permutations(nt, nz)

    def _forget(self) -> None:
        self._flushed += self._length
        self._length = self._next = self._fresh = 0
