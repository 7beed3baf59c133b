"""Where documents that come by several ways meet, before they reach the one callback."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

Receive = Callable[[str, dict[str, Any]], None]

REMEMBERED = 20_000
"""Documents told apart. At a hundred a second, one way may be more than three minutes behind the other."""


class Junction:
    """Hand documents on one at a time, whichever thread brings them; what came by one way is left out when another
    brings it, too.

    Each way brings a run's documents in order, so that what came first by either is in order as well.
    """

    def __init__(self, receive: Receive, *, remembered: int = REMEMBERED) -> None:
        self._receive = receive
        self._remembered = remembered
        self._lock = threading.Lock()
        self._brought_by: OrderedDict[Hashable, str] = OrderedDict()

    def way(self, name: str) -> Receive:
        """Return what takes the documents that come by one way."""

        def take(kind: str, document: dict[str, Any]) -> None:
            with self._lock:
                if self._is_news(name, kind, document):
                    self._receive(kind, document)

        return take

    def _is_news(self, way: str, kind: str, document: Mapping[str, Any]) -> bool:
        """Tell whether a document did not come by another way; the same way may bring a run again, as a replay does."""
        uid = document.get("uid", document.get("datum_id"))
        if uid is None:
            return True
        # Pages have a list of them.
        key = (kind, tuple(uid) if isinstance(uid, list) else uid)
        first = self._brought_by.setdefault(key, way)
        while len(self._brought_by) > self._remembered:
            self._brought_by.popitem(last=False)
        return first == way
