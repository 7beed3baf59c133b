"""Documents that hold many others: what old RunEngines sent in bulk comes as pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from event_model import bulk_datum_to_datum_page, bulk_events_to_event_pages


def single_pages(name: str, document: Any) -> Iterator[tuple[str, Any]]:
    """Yield a document as it is, or the pages that make up one in bulk: each of one stream, or one resource."""
    if name == "bulk_events":
        for page in bulk_events_to_event_pages(document):
            yield "event_page", page
    elif name == "bulk_datum":
        yield "datum_page", bulk_datum_to_datum_page(document)
    else:
        yield name, document
