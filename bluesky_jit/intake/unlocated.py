"""Where rows are: what resource and datum documents tell of it, and what points at those that have not come yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bluesky_jit.intake.streams import numbered_row

NAMED_AT_ONCE = 3
"""More of the documents that did not come are only counted."""


class Locations:
    """Know the documents that say where rows are, and hold the others until those have come that they point at.

    Documents are named by their kind and uid ("stream_resource 7e78…"): so they are told to people, too.
    """

    def __init__(self) -> None:
        self._known: dict[str, Mapping[str, Any]] = {}
        self._waiting: dict[str, list[Mapping[str, Any]]] = {}

    def add(self, kind: str, uid: str, document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Take a document that others point at; return those that have waited for it."""
        name = f"{kind} {uid}"
        self._known[name] = document
        return self._waiting.pop(name, [])

    def find(self, kind: str, uid: str, waiting: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return a document; hold the one that points at it where it has not come."""
        name = f"{kind} {uid}"
        if name not in self._known:
            self._waiting.setdefault(name, []).append(waiting)
        return self._known.get(name)

    def find_filed(
        self, datum_id: str, waiting: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
        """Return the resource of a datum, and the datum; hold the event that points at it where one has not come."""
        datum = self.find("datum", datum_id, waiting)
        resource = None if datum is None else self.find("resource", datum["resource"], waiting)
        return None if datum is None or resource is None else (resource, datum)

    def rows_of(self, descriptor_uid: str) -> list[tuple[int, int]]:
        """Return the rows of a stream, by their number in it, that wait."""
        waiting = [document for documents in self._waiting.values() for document in documents]
        return [_rows_of(document) for document in waiting if document["descriptor"] == descriptor_uid]

    def missing(self) -> str:
        """Name the documents that are waited for."""
        names = list(self._waiting)
        more = len(names) - NAMED_AT_ONCE
        return ", ".join(names[:NAMED_AT_ONCE]) + (f" and {more} more" if more > 0 else "")


def _rows_of(document: Mapping[str, Any]) -> tuple[int, int]:
    """Return which rows of its stream a document is about; those of its file where it does not say."""
    if "indices" not in document:
        return int(document["seq_num"]) - 1, int(document["seq_num"])
    row, n = numbered_row(document), document["indices"]["stop"] - document["indices"]["start"]
    first = int(document["indices"]["start"]) if row is None else row
    return first, first + int(n)
