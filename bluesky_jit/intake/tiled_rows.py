"""Read rows of a run whose files are not on this machine from the Tiled server that has them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bluesky_jit.archive import address, answering, connect_now, raw_catalog
from bluesky_jit.intake.rows import FramesNotReady, runs_of
from bluesky_jit.messages import Asset, Record
from bluesky_jit.settings_sections import TiledSettings

ASK_AGAIN_S = 0.5
"""Pause before a server is asked again for what it did not have: each question takes it some 10 ms."""
ANSWER_S = 5.0
"""How long an answer is waited for. Meanwhile no frames are taken in, of no run; a server that is well needs 10 ms, and
perhaps a second for what it reads from a slow disk."""


class TiledRows:
    """Fetch rows of one run's columns; the connection stays open between messages."""

    def __init__(self, run_uid: str, settings: TiledSettings) -> None:
        self._run_uid = run_uid
        self._settings = settings
        self._place = address(settings.uri)
        self._client: Any = None
        self._refusals: dict[Record | None, _Refusal] = {}
        """What was not there when it was last asked for, by column; None: the server itself."""

    def read(self, asset: Asset, wanted: np.ndarray | None = None) -> np.ndarray:
        """Return the asset's rows, or those that are wanted; raise FramesNotReady unless the server has them all."""
        record = asset.record
        if record is None:
            raise ValueError(f"{asset.dataset} of {asset.uri} is in no record")
        column = replace(record, first=0)
        asked_s = time.monotonic()
        for refusal in (self._refusals.get(None), self._refusals.get(column)):
            if refusal is not None and asked_s < refusal.until_s and record.first + asset.count > refusal.row:
                raise FramesNotReady(refusal.text, available=max(0, refusal.row - record.first))
        try:
            with answering(self._place):
                return self._read(asset, record, wanted)
        except FramesNotReady as error:
            refused, text, row = column, str(error), record.first + error.available
        except OSError as error:
            self.close()
            refused, text, row = None, f"{asset.uri} is not here: {error}", 0
        except (LookupError, ValueError) as error:
            self.close()
            text = f"{asset.uri} is not here, and Tiled at {self._place} has no rows of it yet: {error}"
            refused, row = None, 0
        # A server that keeps us waiting has half of our time at most: other frames wait for as long as it is asked.
        now_s = time.monotonic()
        self._refusals[refused] = _Refusal(text, row, until_s=now_s + max(ASK_AGAIN_S, now_s - asked_s))
        raise FramesNotReady(text, available=max(0, row - record.first))

    def has(self, asset: Asset) -> bool:
        """Tell whether the run's record has such a column."""
        return asset.record is not None

    def close(self) -> None:
        if self._client is not None:
            self._client.context.close()
            self._client = None

    def _read(self, asset: Asset, record: Record, wanted: np.ndarray | None) -> np.ndarray:
        if self._client is None:
            self._client = connect_now(self._settings, answer_s=ANSWER_S)
        # Looked up each time: a client's idea of a growing array's shape stays as it was.
        column = raw_catalog(self._client)[self._run_uid][record.stream][record.key]
        first, count = record.first, asset.count
        shape: list[int] = [int(n) for n in column.shape]
        # Pictures have two dimensions, other values none; before them are events, and the frames of an event.
        pixels = shape[-2:] if len(shape) > 2 else ()
        per_event = math.prod(shape[1 : len(shape) - len(pixels)])
        available = shape[0] * per_event - first
        if available < count:
            raise FramesNotReady(
                f"{asset.uri} is not here, and Tiled at {self._place} has {max(available, 0)} of {count} rows of "
                f"{record.key} from {first} on",
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


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Say what a server did not have: rows from `row` on, until it is asked again."""

    text: str
    row: int
    until_s: float
