"""Read rows of a run whose files are not on this machine from the Tiled server that has them."""

from __future__ import annotations

import math
import time
from typing import Any

import httpx
import numpy as np

from bluesky_jit.archive import address, answering, connect_now, raw_catalog
from bluesky_jit.intake.rows import FramesNotReady, runs_of
from bluesky_jit.messages import Asset
from bluesky_jit.settings_sections import TiledSettings

ASK_AGAIN_S = 0.5
"""Pause before a server is asked again for what it did not have: each question takes it some 10 ms."""


class TiledRows:
    """Fetch rows of one run's columns; the connection stays open between messages."""

    def __init__(self, run_uid: str, settings: TiledSettings) -> None:
        self._run_uid = run_uid
        self._settings = settings
        self._place = address(settings.uri)
        self._client: Any = None
        self._refused_s = -ASK_AGAIN_S
        self._refusal = ""

    def read(self, asset: Asset, wanted: np.ndarray | None = None) -> np.ndarray:
        """Return the asset's rows, or those that are wanted; raise FramesNotReady unless the server has them all."""
        if time.monotonic() - self._refused_s < ASK_AGAIN_S:
            raise FramesNotReady(self._refusal)
        try:
            with answering(self._place):
                return self._read(asset, wanted)
        except FramesNotReady as error:
            self._refused_s, self._refusal = time.monotonic(), str(error)
            raise
        except (OSError, LookupError, ValueError, httpx.HTTPError) as error:
            self.close()
            self._refused_s, self._refusal = time.monotonic(), f"Tiled at {self._place} has no rows yet: {error}"
            raise FramesNotReady(self._refusal) from error

    def has(self, asset: Asset) -> bool:
        """Tell whether the run's record has such a column."""
        return asset.record is not None

    def close(self) -> None:
        if self._client is not None:
            self._client.context.close()
            self._client = None

    def _read(self, asset: Asset, wanted: np.ndarray | None) -> np.ndarray:
        if asset.record is None:
            raise ValueError(f"{asset.dataset} of {asset.uri} is in no record")
        if self._client is None:
            self._client = connect_now(self._settings)
        # Looked up each time: a client's idea of a growing array's shape stays as it was.
        column = raw_catalog(self._client)[self._run_uid][asset.record.stream][asset.record.key]
        first, count = asset.record.first, asset.count
        shape: list[int] = [int(n) for n in column.shape]
        # Pictures have two dimensions, other values none; before them are events, and the frames of an event.
        pixels = shape[-2:] if len(shape) > 2 else ()
        per_event = math.prod(shape[1 : len(shape) - len(pixels)])
        available = shape[0] * per_event - first
        if available < count:
            raise FramesNotReady(
                f"Tiled at {self._place} has {max(available, 0)} of {count} rows of {asset.record.key} from {first} on",
                available=max(available, 0),
            )

        def fetched(begin: int, end: int) -> np.ndarray:
            event, last = begin // per_event, -(-end // per_event)
            values = np.asarray(column[event:last]).reshape(-1, *pixels)
            return values[begin - event * per_event : end - event * per_event]

        if wanted is None:
            return fetched(first, first + count)
        parts = [fetched(first + begin, first + end) for begin, end in runs_of(wanted)]
        return np.concatenate([np.zeros((0, *pixels), dtype=column.dtype), *parts])
