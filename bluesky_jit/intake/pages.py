"""Documents that hold many others: what old RunEngines sent in bulk comes as pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
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


def call_all(take: Callable[..., object], arguments: Iterable[tuple[Any, ...]]) -> None:
    """Call for each of the arguments, in order and whatever one of them raises, which is raised in the end."""
    with ExitStack() as calls:
        # Who was given last is called first.
        for each in reversed(tuple(arguments)):
            calls.callback(take, *each)
