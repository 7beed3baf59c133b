"""What reads rows of recorded columns: the seam between frames and where they are kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from bluesky_jit.messages import Asset


class FramesNotReady(Exception):
    """Say that a file does not hold all the rows yet; `available` of them can be read."""

    def __init__(self, text: str, available: int = 0) -> None:
        super().__init__(text)
        self.available = available


class Rows(Protocol):
    """Read rows that an asset names."""

    def read(self, asset: Asset, wanted: np.ndarray | None = None) -> np.ndarray:
        """Return the rows, or those that are wanted, bool (count,); raise FramesNotReady unless all are there."""
        ...

    def has(self, asset: Asset) -> bool:
        """Tell whether there is such a column."""
        ...

    def close(self) -> None: ...


def runs_of(wanted: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each run of True in bool (n,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
