"""What has been sent of the runs that are open, for a listener that missed their beginning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

MOST_BYTES = 64 * 2**20
"""Of runs whose frames are inside events, the first few hundred frames; of others, many hours."""
SMALL_DOCUMENT = 1024
CAUGHT_UP = "jit_caught_up"
"""Key that is added to the start document of a run whose beginning comes late: it went on for a while before."""

Document = tuple[str, dict[str, Any]]


class History:
    """Keep the documents of open runs; rows that follow each other become one document.

    A run that is too large to be kept is forgotten: its record has to be asked for what was missed.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._forget()

    def documents(self) -> list[Document]:
        """Return what is kept, in order."""
        return list(self._documents) if self._whole else []

    def add(self, name: str, document: dict[str, Any]) -> None:
        """Take the next document; when no run is open any more, forget all."""
        if name == "start":
            self._open.add(document["uid"])
        elif name == "stop":
            self._open.discard(document.get("run_start"))
            if not self._open:
                self._forget()
                return
        if not self._open or not self._whole:
            return
        place = (document["stream_resource"], document["descriptor"]) if name == "stream_datum" else None
        if place is not None and (at := self._rows.get(place)) is not None:
            earlier = self._documents[at][1]
            if _follows(earlier, document):
                self._documents[at] = name, _joined(earlier, document)
                return
        if place is not None:
            self._rows[place] = len(self._documents)
        self._bytes += size_of(document)
        self._documents.append((name, document))
        if self._bytes > self._most_bytes:
            self._documents.clear()
            self._whole = False

    def _forget(self) -> None:
        self._open: set[str] = set()
        self._documents: list[Document] = []
        self._rows: dict[tuple[str, str], int] = {}
        self._bytes = 0
        self._whole = True


def _follows(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> bool:
    return all(earlier[key]["stop"] == later[key]["start"] for key in ("indices", "seq_nums"))


def _joined(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    both = {key: {"start": earlier[key]["start"], "stop": later[key]["stop"]} for key in ("indices", "seq_nums")}
    return {**later, **both}


def size_of(document: Mapping[str, Any]) -> int:
    """Return about how many bytes a document takes: those of its arrays, and a little for the rest."""
    data = document.get("data")
    values = data.values() if isinstance(data, Mapping) else ()
    return SMALL_DOCUMENT + sum(value.nbytes for value in values if isinstance(value, np.ndarray))
