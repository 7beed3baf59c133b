"""A run that was joined late: what is heard of it from now on, put together with what its record says of before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from event_model import EventPage, unpack_event_page

from bluesky_jit.intake.history import CAUGHT_UP
from bluesky_jit.intake.late_stream import Document, LateStream, RecordedStream

NAMED = ("descriptor", "stream_resource", "resource")
"""Documents that others of their run refer to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """Hold what is recorded of a run so far; streams: in the order in which they began; stop: when that is all."""

    start: dict[str, Any]
    streams: tuple[RecordedStream, ...] = ()
    stop: dict[str, Any] | None = None

    @property
    def uid(self) -> str:
        return str(self.start["uid"])


class LateRun:
    """Turn documents and records of a run into the documents that would have come.

    A record does not keep how the resource documents were called, so what is heard of resources that were announced
    before is only taken as news of how far a stream has come: its rows are named anew, by the files on record.
    """

    def __init__(self) -> None:
        self.held: list[Document] = []
        """What came before its record was found."""
        self._streams: dict[str, LateStream] = {}
        self._descriptors: dict[str, dict[str, Any]] = {}
        self._resources: set[str] = set()
        self._stop: dict[str, Any] | None = None
        self.references: set[str] = set()
        """What documents of this run name, as far as it is known."""
        self.run_uids: set[str] = set()
        """Which run they say that they are of."""
        self.uid = ""
        """Empty until its record was found."""
        self.held_bytes = 0
        self.over = False
        """Its stop document has been handed on, or it was given up."""

    @property
    def ending(self) -> bool:
        """Tell whether its stop document has come."""
        return self._stop is not None or any(name == "stop" for name, _ in self.held)

    @property
    def events_had(self) -> dict[str, int]:
        """Return up to which number the events of each stream are known."""
        return {stream.name: stream.events_had for stream in self._streams.values()}

    def hear(self, name: str, document: dict[str, Any]) -> list[Document]:
        """Take a document that came; return those to hand on now."""
        self.references.update(references_of(name, document))
        if not self.uid and "run_start" in document:
            self.run_uids.add(str(document["run_start"]))
        if not self.uid:
            self.held.append((name, document))
            return []
        if name == "stop":
            self._stop = document
            return self._end(whole=False)
        if name in ("stream_resource", "resource"):
            self._resources.add(document["uid"])
        elif name == "descriptor":
            if document["uid"] in self._streams:
                return []
            self._descriptors[document["uid"]] = document
        elif name in ("datum", "datum_page") and document["resource"] not in self._resources:
            return []
        elif name == "event_page":
            return [
                each
                for event in unpack_event_page(cast(EventPage, document))
                for each in self.hear("event", dict(event))
            ]
        elif name == "stream_datum":
            return self._hear_rows(document)
        elif name == "event" and (stream := self._streams.get(document["descriptor"])) is not None:
            return stream.hear_event(document)
        return [(name, document)]

    def _hear_rows(self, datum: dict[str, Any]) -> list[Document]:
        stream = self._streams.get(datum["descriptor"])
        if datum["stream_resource"] in self._resources:
            if stream is not None:
                stream.note(datum)
            return [("stream_datum", datum)]
        if stream is None and (descriptor := self._descriptors.get(datum["descriptor"])) is not None:
            # A new stream in a file that was announced before.
            stream = self._streams[datum["descriptor"]] = LateStream(descriptor)
        return stream.hear_rows(datum) if stream else []

    def learn(self, record: RecordedRun) -> list[Document]:
        """Take what is recorded by now; return the documents to hand on."""
        documents: list[Document] = []
        first = not self.uid
        if first:
            self.uid = record.uid
            documents.append(("start", {**record.start, CAUGHT_UP: True}))
        for recorded in record.streams:
            documents += self._learn_stream(recorded)
        if first:
            held, self.held = self.held, []
            for name, document in held:
                if document.get("run_start", self.uid) == self.uid:
                    documents += self.hear(name, document)
        # It may have ended before anybody listened again.
        self._stop = self._stop or record.stop
        return documents + self._end(whole=record.stop is not None)

    def give_up(self) -> list[Document]:
        """Return the stop document, if it has come, without waiting for the rest of the record."""
        return self._end(whole=True)

    def _learn_stream(self, recorded: RecordedStream) -> list[Document]:
        documents: list[Document] = []
        for descriptor in recorded.descriptors:
            uid = descriptor["uid"]
            if uid in self._streams or uid in self._descriptors:
                continue
            known = next((each for each in self._streams.values() if each.name == descriptor["name"]), None)
            self._streams[uid] = known or LateStream(descriptor)
            documents.append(("descriptor", descriptor))
        stream = self._streams.get(recorded.descriptors[0]["uid"])
        if stream is None:
            # It has been heard from its beginning.
            return documents
        # Streams may share a file: one begins where those before it end.
        before = [each for each in dict.fromkeys(self._streams.values()) if each is not stream]
        return documents + stream.learn(recorded, before)

    def _end(self, *, whole: bool) -> list[Document]:
        """Return the stop document when nothing that it counts is missing."""
        if self._stop is None or self.over:
            return []
        counts = self._stop.get("num_events") or {}
        streams = dict.fromkeys(self._streams.values())
        if not whole and not all(stream.reached >= counts.get(stream.name, 0) for stream in streams):
            return []
        self.over = True
        return [("stop", self._stop)]


def references_of(name: str, document: Mapping[str, Any]) -> list[str]:
    """Return what a document names of its run, and itself when others name it."""
    keys = ("run_start", "descriptor", "stream_resource", "resource", *(("uid",) if name in NAMED else ()))
    return [str(document[key]) for key in keys if key in document]
