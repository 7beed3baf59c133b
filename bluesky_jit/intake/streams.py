"""Bring together the columns of a stream: image, angle, id and time stamp arrive in documents of their own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bluesky_jit.messages import Asset


class StreamColumns:
    """Hold the rows that some columns of a stream have and others still lack.

    Rows count from the beginning of the stream; a column's assets come in order, each where the last one ended.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._waiting: dict[str, list[Asset]] = {key: [] for key in keys}
        self._row = 0

    def add(self, key: str, asset: Asset) -> list[tuple[int, dict[str, Asset]]]:
        """Take a column's next rows; return (first row in the stream, asset by key) for rows now complete."""
        if key not in self._waiting or asset.count == 0:
            return []
        self._waiting[key].append(asset)
        ready = []
        while all(self._waiting.values()):
            count = min(assets[0].count for assets in self._waiting.values())
            ready.append((self._row, {name: self._take(name, count) for name in self._waiting}))
            self._row += count
        return ready

    def waiting(self) -> list[str]:
        """Return the columns whose rows wait for those of others."""
        return [key for key, assets in self._waiting.items() if assets]

    def _take(self, key: str, count: int) -> Asset:
        first, *rest = self._waiting[key]
        if first.count > count:
            rest.insert(0, replace(first, first=first.first + count, count=first.count - count))
        self._waiting[key] = rest
        return replace(first, count=count)
