"""Keep the documents of a run on disk until they are safely elsewhere: one file each, written whole or not at all."""

from __future__ import annotations

import fcntl
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

Document = tuple[str, dict[str, Any]]

LOCK = "lock"


class RunRecord:
    """Put a run's documents into its folder so that a record that finds no room is missing whole, and alone.

    A descriptor goes in with the first event of its stream that does; events are numbered, and the stop document
    counts them, as they are in the folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._started = False
        self._streams: dict[str, str] = {}
        self._held: dict[str, Document] = {}
        self._counts: Counter[str] = Counter()

    def add(self, name: str, document: dict[str, Any]) -> None:
        """Add the next document; raise OSError when there is no room for it."""
        if name == "start":
            self.folder.append((name, document))
            self._started = True
        elif not self._started:
            raise OSError("there was no room for its start")
        elif name == "descriptor":
            self._streams[document["uid"]] = document["name"]
            self._held[document["uid"]] = name, document
        elif name == "event":
            self._add_event(document)
        else:
            self.folder.append((name, {**document, "num_events": dict(self._counts)}))

    def _add_event(self, event: dict[str, Any]) -> None:
        descriptor = event["descriptor"]
        stream = self._streams[descriptor]
        numbered = "event", {**event, "seq_num": self._counts[stream] + 1}
        held = self._held.get(descriptor)
        self.folder.append(*([held, numbered] if held else [numbered]))
        self._held.pop(descriptor, None)
        self._counts[stream] += 1


class RunFolder:
    """Hold the documents of one run in order; whoever has the folder's lock is its only owner."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = (path / LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise
        self.count = sum(1 for _ in path.glob("*.msgpack"))

    def append(self, *documents: Document) -> None:
        """Add documents, all of them or none."""
        files = [self.path / f"{self.count + index:08d}.msgpack" for index in range(len(documents))]
        partials = [file.with_suffix(".partial") for file in files]
        try:
            for partial, document in zip(partials, documents, strict=True):
                with partial.open("wb") as stream:
                    msgpack.pack(document, stream, default=_pack)
        except OSError:
            for partial in partials:
                partial.unlink(missing_ok=True)
            raise
        for partial, file in zip(partials, files, strict=True):
            partial.replace(file)
        self.count += len(documents)

    def read(self, index: int) -> Document:
        """Return document number `index`."""
        data = (self.path / f"{index:08d}.msgpack").read_bytes()
        name, document = msgpack.unpackb(data, object_hook=_unpack)
        return name, document

    def remove(self) -> None:
        """Delete the folder: its documents are safe."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)

    def close(self) -> None:
        """Leave the folder to the next owner."""
        self._lock.close()


def left_behind(directory: Path) -> Iterator[RunFolder]:
    """Yield the run folders in a directory that nobody owns: their session ended before they were sent."""
    for path in sorted(directory.glob("*/")):
        try:
            folder = RunFolder(path)
        except OSError:
            continue
        if folder.count == 0:
            folder.remove()
            continue
        _close_run(folder)
        yield folder


def _close_run(folder: RunFolder) -> None:
    """Give a run whose session died a stop document, so that nobody waits for more of it."""
    documents = [folder.read(index) for index in range(folder.count)]
    if documents[-1][0] == "stop":
        return
    streams = {document["uid"]: document["name"] for name, document in documents if name == "descriptor"}
    counts = Counter(streams[document["descriptor"]] for name, document in documents if name == "event")
    stop = {
        "uid": str(uuid.uuid4()),
        "run_start": documents[0][1]["uid"],
        "time": documents[-1][1]["time"],
        "exit_status": "fail",
        "reason": "the session ended before the run did",
        "num_events": dict(counts),
    }
    folder.append(("stop", stop))


def _pack(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"__array__": value.dtype.str, "shape": value.shape, "data": value.tobytes()}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__} cannot be kept: documents hold numbers, text, lists and arrays")


def _unpack(value: dict[Any, Any]) -> Any:
    if "__array__" not in value:
        return value
    return np.frombuffer(value["data"], dtype=value["__array__"]).reshape(value["shape"])
