"""A stream that began before it was heard: its rows and events, put together from its record and from what comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import h5py

Document = tuple[str, dict[str, Any]]

STREAM = "STREAM:"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedColumn:
    """Say where a stream's rows of one data key are: in these HDF5 files, one after the other, `rows` so far."""

    uris: tuple[str, ...]
    parameters: Mapping[str, Any]
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedStream:
    """Hold what is recorded of a stream so far; events: those that were asked for, in order."""

    descriptors: tuple[dict[str, Any], ...]
    columns: Mapping[str, RecordedColumn]
    events: tuple[dict[str, Any], ...] = ()


class LateStream:
    """Follow one stream that began before it was heard."""

    def __init__(self, descriptor: Mapping[str, Any]) -> None:
        self.name = str(descriptor["name"])
        self.columns: Mapping[str, RecordedColumn] = {}
        self.events_had = 0
        self._descriptor = str(descriptor["uid"])
        self._run = str(descriptor["run_start"])
        data_keys = descriptor["data_keys"]
        self._filed = [key for key, value in data_keys.items() if str(value.get("external", "")).startswith(STREAM)]
        self._has_events = any("external" not in value for value in data_keys.values())
        self._begin = 0
        """The row of the first file at which the stream begins: others may share it."""
        self._shared = False
        self._heard: dict[str, _Heard] = {}
        self._named: dict[tuple[str, int], int] = {}
        """Up to which row the rows of each column and file have been named."""
        self._events: dict[int, dict[str, Any]] = {}
        self.rows_had = 0

    @property
    def reached(self) -> int:
        """Return how many rows, and events, have been handed on."""
        counts = [self.rows_had] if self._filed else []
        return min([*counts, self.events_had]) if self._has_events else self.rows_had

    def learn(self, recorded: RecordedStream, before: list[LateStream]) -> list[Document]:
        self.columns = recorded.columns
        sharing = [stream for stream in before if stream.shares(self.columns)]
        self._shared = bool(sharing)
        self._begin = sum(stream.rows_recorded for stream in sharing)
        for event in recorded.events:
            self._events.setdefault(int(event["seq_num"]), event)
        return self._rows_on_record() + self._rows_heard() + self._events_in_order()

    def shares(self, columns: Mapping[str, RecordedColumn]) -> bool:
        """Tell whether other columns lie in the same file and dataset as some here."""
        own = {(column.uris[0], column.parameters.get("dataset")) for column in self.columns.values()}
        return any((column.uris[0], column.parameters.get("dataset")) in own for column in columns.values())

    @property
    def rows_recorded(self) -> int:
        return min((column.rows for column in self.columns.values()), default=0)

    def hear_rows(self, datum: Mapping[str, Any]) -> list[Document]:
        """Take a stream_datum of a resource that was announced before."""
        self._heard.setdefault(str(datum["stream_resource"]), _Heard()).take(datum)
        return self._rows_heard()

    def note(self, datum: Mapping[str, Any]) -> None:
        """Take notice of rows that are handed on as they came."""
        numbers = datum.get("seq_nums") or {"start": 0, "stop": 0}
        if int(numbers["start"]) - 1 <= self.rows_had:
            self.rows_had = max(self.rows_had, int(numbers["stop"]) - 1)

    def hear_event(self, event: dict[str, Any]) -> list[Document]:
        """Take an event; it is handed on when those before it have been."""
        number = int(event["seq_num"])
        if number > self.events_had:
            # References to files are of resources that were missed.
            data = {key: value for key, value in event["data"].items() if key not in self._filed}
            self._events[number] = {**event, "data": data}
        documents = self._events_in_order()
        if self._filed and not self._heard:
            # It may stand for rows in files, too: as many as there were events.
            documents += self._name_last(number)
        return documents

    def _events_in_order(self) -> list[Document]:
        documents: list[Document] = []
        if not self._has_events:
            self._events.clear()
        while (event := self._events.pop(self.events_had + 1, None)) is not None:
            self.events_had += 1
            documents.append(("event", event))
        return documents

    def _rows_on_record(self) -> list[Document]:
        if not self._complete:
            return []
        rows = self.rows_recorded
        files = self._files
        documents: list[Document] = []
        for index in range(files - 1):
            count = self._count(index)
            documents += self._name(index, 0, count)
            rows -= count
        return documents + self._name(files - 1, self._begin if files == 1 else 0, rows)

    def _rows_heard(self) -> list[Document]:
        """Name the rows of the last file that every column is known to have."""
        if not self._complete or len(self._heard) < len(self._filed):
            return []
        heard = min(self._heard.values(), key=lambda each: each.stop)
        if (heard.shift < 0) != (self._files > 1):
            # A file that was begun meanwhile is not on record yet.
            return []
        if self._shared:
            self._begin = heard.shift
        begin = self._begin if self._files == 1 else 0
        return self._name(self._files - 1, begin, heard.stop - begin)

    def _name_last(self, rows: int) -> list[Document]:
        if not self._complete or self._files > 1:
            return []
        return self._name(0, self._begin, rows)

    @property
    def _complete(self) -> bool:
        """Tell whether the files of every column are on record, and equally many of each."""
        return bool(self._filed) and set(self._filed) <= set(self.columns) and self._files > 0

    @property
    def _files(self) -> int:
        counts = {len(self.columns[key].uris) for key in self._filed}
        return counts.pop() if len(counts) == 1 else 0

    def _count(self, index: int) -> int:
        """Return how many rows a file has that is not written any more."""
        return min(
            _rows_in_file(self.columns[key].uris[index], str(self.columns[key].parameters.get("dataset", "")))
            for key in self._filed
        )

    def _name(self, index: int, begin: int, count: int) -> list[Document]:
        """Return documents for `count` rows from `begin` on of one file, as far as they are new."""
        earlier = sum(self._count(each) for each in range(index))
        documents: list[Document] = []
        for key in self._filed:
            uid = f"caught-up-{self._descriptor}-{key}-{index}"
            if (key, index) not in self._named:
                self._named[key, index] = begin
                documents.append(("stream_resource", self._resource(uid, key, index)))
            first, stop = self._named[key, index], begin + count
            if stop <= first:
                continue
            self._named[key, index] = stop
            numbers = {"start": earlier + first - begin + 1, "stop": earlier + stop - begin + 1}
            datum = {
                "uid": f"{uid}/{first}",
                "stream_resource": uid,
                "descriptor": self._descriptor,
                "indices": {"start": first, "stop": stop},
                "seq_nums": numbers,
            }
            documents.append(("stream_datum", datum))
            self.rows_had = max(self.rows_had, numbers["stop"] - 1)
        return documents

    def _resource(self, uid: str, key: str, index: int) -> dict[str, Any]:
        column = self.columns[key]
        return {
            "uid": uid,
            "run_start": self._run,
            "data_key": key,
            "uri": column.uris[index],
            "mimetype": "application/x-hdf5",
            "parameters": dict(column.parameters),
        }


@dataclass(slots=True)
class _Heard:
    """Follow a resource whose own document was missed."""

    stop: int = 0
    shift: int = 0
    """Its row in the file less its row in the stream."""
    taken: bool = False

    def take(self, datum: Mapping[str, Any]) -> None:
        indices, numbers = datum["indices"], datum.get("seq_nums") or {"start": 0, "stop": 0}
        # A RunEngine that has not numbered rows says 0 to 0.
        numbered = numbers["stop"] > numbers["start"]
        if not self.taken:
            self.shift = int(indices["start"]) - (int(numbers["start"]) - 1) if numbered else 0
            self.taken = True
        self.stop = max(self.stop, int(indices["stop"]))


def _rows_in_file(uri: str, dataset: str) -> int:
    """Return how many rows a dataset of an HDF5 file on this machine has."""
    with h5py.File(unquote(urlsplit(uri).path), "r", locking=False, swmr=True) as file:
        found = file[dataset]
        if not isinstance(found, h5py.Dataset):
            raise ValueError(f"{dataset} in {uri} is no dataset")
        return int(found.shape[0])
