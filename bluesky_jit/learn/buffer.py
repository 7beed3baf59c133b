"""The capacity queue of the paper: the newest pairs, drawn uniformly while new ones arrive.

One thread may push while another samples: each holds the lock for the copy of one batch (tens of microseconds).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bluesky_jit.messages import Pairs

_COUNTERS = ("length", "next", "fresh", "pushed", "sampled", "flushed")


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferCounts:
    """Say what went through the buffer. picks_per_pair: how often a pair is drawn, on average, while it is here."""

    buffered: int
    pushed: int
    sampled: int
    flushed: int
    picks_per_pair: float
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


class PairBuffer:
    """Keep the newest `capacity` pairs and draw batches of them.

    Each patch drawn is flipped or turned, and its u and v swapped, at random: without that a small buffer is learnt by
    heart. Swap only views of equal noise (two splits).
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
        if capacity < 1:
            raise ValueError(f"learn.buffer is {capacity}: give at least one pair")
        self.capacity = capacity
        self._augment = augment
        self._swap = swap
        self._clock = clock
        self._rng = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._store = np.empty((0, 2, 0, 0), dtype=np.float32)  # (capacity, u or v, nt·nz, ny·nx)
        self._times = np.zeros(capacity)
        self._shape = (0, 0, 0, 0)
        self._permutations = np.empty((0, 0), dtype=np.int64)
        self._length = 0
        self._next = 0
        self._fresh = 0
        self._pushed = 0
        self._sampled = 0
        self._flushed = 0

    def __len__(self) -> int:
        return self._length

    def push(self, pairs: Pairs) -> None:
        """Add pairs, in place of the oldest when full; a new shape of patch empties the buffer first."""
        require_usable(pairs)
        with self._lock:
            _, nt, nz, ny, nx = pairs.u.shape
            if (nt, nz, ny, nx) != self._shape:
                self._allocate((nt, nz, ny, nx))
            kept = slice(max(0, len(pairs) - self.capacity), None)
            u, v = pairs.u[kept], pairs.v[kept]
            rows = (self._next + np.arange(len(u))) % self.capacity
            self._store[rows, 0] = u.reshape(len(u), *self._store.shape[2:])
            self._store[rows, 1] = v.reshape(len(v), *self._store.shape[2:])
            self._times[rows] = self._clock()
            self._next = int(rows[-1] + 1) % self.capacity
            self._length = min(self._length + len(u), self.capacity)
            self._fresh = min(self._fresh + len(u), self.capacity)
            self._pushed += len(pairs)

    def sample(self, count: int) -> Pairs:
        """Draw pairs uniformly, with replacement."""
        with self._lock:
            if self._length == 0:
                raise ValueError("the buffer is empty: push pairs before sampling")
            rows = self._rng.integers(self._length, size=count)
            ways = self._rng.integers(len(self._permutations) if self._augment else 1, size=count)
            swapped = self._rng.integers(2 if self._swap else 1, size=count)
            _, _, channels, points = self._store.shape
            # One gather does row, swap and symmetry: the flat place of every value.
            sides = rows[:, None] * 2 + (swapped[:, None] ^ np.arange(2))
            images = sides[:, :, None] * channels + np.arange(channels)
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
            rows = (self._next - count + np.arange(count)) % self.capacity
            newest = self._store[rows].reshape(count, 2, *self._shape)
        return Pairs(u=newest[:, 0], v=newest[:, 1])

    def state_dict(self) -> dict[str, Any]:
        """Return the pairs, the counters and the generator, in types that torch.load(weights_only=True) takes."""
        with self._lock:
            return {
                "shape": self._shape,
                "store": torch.from_numpy(self._store.copy()),
                "ages_s": torch.from_numpy(self._clock() - self._times),
                "random": self._rng.bit_generator.state,
                **{name: getattr(self, "_" + name) for name in _COUNTERS},
            }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` of a buffer of this capacity returned: the same draws follow."""
        with self._lock:
            if len(state["ages_s"]) != self.capacity:
                raise ValueError(
                    f"the checkpoint is of a buffer of {len(state['ages_s'])} pairs and this one holds "
                    f"{self.capacity}: set learn.buffer to match"
                )
            self._allocate(tuple(state["shape"]))
            self._store = state["store"].numpy().copy()
            self._times = self._clock() - state["ages_s"].numpy()
            self._rng.bit_generator.state = state["random"]
            for name in _COUNTERS:
                setattr(self, "_" + name, state[name])

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
                picks_per_pair=self._sampled / self._pushed if self._pushed else float("nan"),
                age_s=self._clock() - float(self._times[: self._length].mean()) if self._length else float("nan"),
            )

    def _allocate(self, shape: tuple[int, int, int, int]) -> None:
        nt, nz, ny, nx = shape
        self._forget()
        self._store = np.zeros((self.capacity, 2, nt * nz, ny * nx), dtype=np.float32)
        self._shape = shape
        self._permutations = dihedral_permutations(ny, nx)

    def _forget(self) -> None:
        self._flushed += self._length
        self._length = self._next = self._fresh = 0
