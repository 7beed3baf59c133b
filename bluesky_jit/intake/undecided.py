"""Hold the documents of a run that has not shown yet whether it is a tomography."""

from __future__ import annotations

from typing import Any

from bluesky_jit.intake.dialects import image_key

MOST_DOCUMENTS = 10_000
"""Some 10 MB; a run of so many that shows nothing is one of point detectors."""
MOST_BYTES = 256 * 2**20
"""Of frames inside events, which other runs bring, too."""


class HeldDocuments:
    """Keep what could become frames, within bounds; what did not fit is counted."""

    def __init__(self) -> None:
        self._documents: list[tuple[str, dict[str, Any]]] = []
        self._image_of: dict[str, str] = {}
        self._bytes = 0
        self.dropped = 0
        """Events that could not be kept."""

    def put(self, name: str, document: dict[str, Any]) -> None:
        """Take a document of the run."""
        if name == "descriptor":
            self._image_of[document["uid"]] = image_key(document["data_keys"])
        n_bytes = self._bytes_of(document) if name in ("event", "event_page") else 0
        if len(self._documents) >= MOST_DOCUMENTS or self._bytes + n_bytes > MOST_BYTES:
            self.dropped += 1
            return
        self._bytes += n_bytes
        self._documents.append((name, document))

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the documents in order, and forget them."""
        documents, self._documents, self._bytes = self._documents, [], 0
        return documents

    def _bytes_of(self, event: dict[str, Any]) -> int:
        value = event["data"].get(self._image_of.get(event["descriptor"], ""))
        values = value if isinstance(value, list) else [value]
        return sum(int(getattr(each, "nbytes", 0)) for each in values)
