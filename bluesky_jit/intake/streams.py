"""Bring together the columns of a stream: image, angle, id and time stamp arrive in documents of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bluesky_jit.messages import Asset


class StreamColumns:
    """Hold the rows that some columns of a stream have and others still lack; the first column leads.

    Documents may be lost, come twice or out of order on their way: rows belong together when they are the same rows of
    one file or, where columns lie in files of their own, have the same number in the stream.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._waiting: dict[str, list[_Rows]] = {key: [] for key in keys}
        self._first_key = next(iter(self._waiting), "")
        self._seen: dict[tuple[str, str], list[tuple[int, int]]] = {}
        """Which rows of a file came, by column and file: ranges in order."""
        self._counted = dict.fromkeys(self._waiting, 0)
        self._complete_rows: list[tuple[int, int]] = []
        """By their number in the stream: ranges in order."""

    def add(self, key: str, asset: Asset, row: int | None = None) -> list[tuple[int, dict[str, Asset]]]:
        """Take rows of a column; return (first row in the stream, asset by key) for rows now complete.

        row: the number in the stream of the first of them; None for the one after those that came before.
        """
        if key not in self._waiting or asset.count == 0:
            return []
        row = self._counted[key] if row is None else row
        self._counted[key] = max(self._counted[key], row + asset.count)
        ready: list[tuple[int, dict[str, Asset]]] = []
        for first, stop in self._new(key, asset):
            rows = self._wait(key, _Rows(row + first - asset.first, replace(asset, first=first, count=stop - first)))
            leaders = [rows] if key == self._first_key else [*self._waiting[self._first_key]]
            for leader in leaders:
                begin = max(0, rows.begin_in(leader))
                end = min(leader.asset.count, rows.begin_in(leader) + rows.asset.count)
                for at, parts in list(self._complete(leader, begin, end)):
                    ready.append((leader.row + at, {name: part.asset for name, part in parts.items()}))
                    self._complete_rows[:] = _merged(
                        [*self._complete_rows, (leader.row + at, leader.row + at + parts[self._first_key].asset.count)]
                    )
                    self._take(parts)
        return ready

    def incomplete(self, announced: Iterable[tuple[int, int]]) -> int:
        """Count the rows that some column has, or that are announced without one, and that are not complete."""
        waiting = [(rows.row, rows.row + rows.asset.count) for column in self._waiting.values() for rows in column]
        return sum(
            stop - first - sum(max(0, min(stop, end) - max(first, begin)) for begin, end in self._complete_rows)
            for first, stop in _merged([*waiting, *announced])
        )

    def waiting(self) -> list[str]:
        """Return the columns whose rows wait for those of others."""
        return [key for key, rows in self._waiting.items() if rows]

    def _wait(self, key: str, rows: _Rows) -> _Rows:
        """Let rows wait; return them with those that they continue."""
        waiting = self._waiting[key]
        if waiting and waiting[-1].continued_by(rows):
            last = waiting.pop()
            rows = _Rows(last.row, replace(last.asset, count=last.asset.count + rows.asset.count))
        waiting.append(rows)
        return rows

    def _new(self, key: str, asset: Asset) -> list[tuple[int, int]]:
        """Return the ranges of file rows that had not come yet, and remember that they have."""
        begin, end = asset.first, asset.first + asset.count
        seen = self._seen.setdefault((key, asset.uri), [])
        new, at = [], begin
        for first, stop in seen:
            if at < min(first, end):
                new.append((at, min(first, end)))
            at = max(at, stop)
        if at < end:
            new.append((at, end))
        seen[:] = _merged([*seen, *new])
        return new

    def _complete(self, leader: _Rows, begin: int, end: int) -> Iterator[tuple[int, dict[str, _Rows]]]:
        """Yield the spans between two rows of the leading column that every column has, part by part."""
        others = [key for key in self._waiting if key != self._first_key]
        at = begin
        while at < end:
            stop, parts = end, {}
            for key in others:
                here = [rows for rows in self._waiting[key] if rows.begin_in(leader) + rows.asset.count > at]
                found = min(here, key=lambda rows: rows.begin_in(leader), default=None)
                starts = end if found is None else found.begin_in(leader)
                if found is None or starts > at:
                    stop, parts = min(starts, end), None
                    break
                stop, parts[key] = min(stop, starts + found.asset.count), found
            if parts is not None:
                spans = {key: rows.part(at - rows.begin_in(leader), stop - at) for key, rows in parts.items()}
                yield at, {self._first_key: leader.part(at, stop - at), **spans}
            at = stop

    def _take(self, parts: dict[str, _Rows]) -> None:
        """Let rows wait no longer."""
        for key, part in parts.items():
            self._waiting[key] = [left for rows in self._waiting[key] for left in rows.without(part)]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of a file; `row` is the number in the stream of the first of them."""

    row: int
    asset: Asset

    def begin_in(self, leader: _Rows) -> int:
        """Return where these rows begin, counted from the leader's first one."""
        same_file = self.asset.uri == leader.asset.uri
        return self.asset.first - leader.asset.first if same_file else self.row - leader.row

    def continued_by(self, rows: _Rows) -> bool:
        here, next_one = self.asset, rows.asset
        follows = here.first + here.count == next_one.first and self.row + here.count == rows.row
        return follows and replace(next_one, first=here.first, count=here.count) == here

    def part(self, first: int, count: int) -> _Rows:
        return _Rows(self.row + first, replace(self.asset, first=self.asset.first + first, count=count))

    def without(self, part: _Rows) -> list[_Rows]:
        """Return what is left of these rows."""
        if self.asset.uri != part.asset.uri:
            return [self]
        count = self.asset.count
        begin = min(max(part.asset.first - self.asset.first, 0), count)
        end = min(max(part.asset.first + part.asset.count - self.asset.first, begin), count)
        return [self.part(first, stop - first) for first, stop in ((0, begin), (end, count)) if stop > first]


def numbered_row(datum: Mapping[str, Any]) -> int | None:
    """Return the number in its stream of a datum's first row, if it has one."""
    # Events count from 1; documents that a RunEngine has not numbered say 0 to 0.
    numbers, indices = datum.get("seq_nums") or {"start": 0, "stop": 0}, datum["indices"]
    is_numbered = numbers["stop"] - numbers["start"] == indices["stop"] - indices["start"]
    return int(numbers["start"]) - 1 if is_numbered else None


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the same rows in as few ranges as will do, in order."""
    merged: list[tuple[int, int]] = []
    for first, stop in sorted(ranges):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((first, stop))
    return merged
