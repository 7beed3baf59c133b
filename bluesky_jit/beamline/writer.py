"""The camera's file: areaDetector's HDF5 plugin, and the documents that announce what it writes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from event_model import StreamRange, compose_stream_resource
from ophyd import Component
from ophyd.areadetector.base import EpicsSignalWithRBV
from ophyd.areadetector.plugins import HDF5Plugin
from ophyd.status import SubscriptionStatus

from bluesky_jit.beamline.reads import ANSWER_S

PUT_TIMEOUT_S = 10.0
STREAM = 2
NEW_FOLDERS = 5
"""How many folders of a path the plugin may make."""
TEMPLATE = "%s%s_%6.6d.h5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Describe one dataset of the file: a row for each frame."""

    key: str
    dataset: str
    dtype_numpy: str
    shape: tuple[int, ...] = ()
    chunk: tuple[int, ...] = (1024,)
    units: str | None = None

    def to_data_key(self, source: str) -> dict[str, Any]:
        """Return the data key of an event descriptor."""
        return {
            "source": source,
            "shape": list(self.shape),
            "dtype": "array" if self.shape else "number",
            "dtype_numpy": self.dtype_numpy,
            "external": "STREAM:",
            **({"units": self.units} if self.units else {}),
        }


class StreamFile:
    """Announce the rows of one file, each once."""

    def __init__(self, path: str, columns: Sequence[Column], *, swmr: bool) -> None:
        self._streams = [
            compose_stream_resource(
                mimetype="application/x-hdf5",
                uri=f"file://localhost{quote(path)}",
                data_key=column.key,
                parameters={"dataset": column.dataset, "swmr": swmr, "chunk_shape": list(column.chunk)},
            )
            for column in columns
        ]
        self._announced = False
        self._next = 0

    def skip_to(self, row: int) -> None:
        """Leave rows before this one unannounced."""
        self._next = row

    def documents(self, written: int) -> Iterator[tuple[str, Any]]:
        """Yield the stream_resource documents at first, then stream_datum documents for rows that are new."""
        if written <= self._next:
            return
        if not self._announced:
            self._announced = True
            for stream in self._streams:
                yield "stream_resource", stream.stream_resource_doc
        rows = StreamRange(start=self._next, stop=written)
        self._next = written
        for stream in self._streams:
            yield "stream_datum", stream.compose_stream_datum(rows)


class FileWriter(HDF5Plugin):
    """The HDF5 plugin with the records that every ADCore since 2.5 has; it writes one file after another."""

    swmr_mode = Component(EpicsSignalWithRBV, "SWMRMode", kind="omitted")
    create_directory = Component(EpicsSignalWithRBV, "CreateDirectory", kind="omitted")

    @property
    def written(self) -> int:
        """Return how many frames are in the file."""
        return int(self.num_captured.get(use_monitor=False, timeout=ANSWER_S))

    def open_file(self, *, directory: str, label: str, frames: int) -> str:
        """Begin a file for a number of frames (0: until it is closed) and return its path.

        An empty directory stands for the one that the plugin has.
        """
        if directory:
            self.create_directory.put(-NEW_FOLDERS, wait=True, timeout=PUT_TIMEOUT_S)
            self.file_path.put(directory, wait=True, timeout=PUT_TIMEOUT_S)
        accepted = str(self.file_path.get(use_monitor=False, timeout=ANSWER_S))
        refused = bool(directory) and PurePath(accepted) != PurePath(directory)
        if refused or not self.file_path_exists.get(use_monitor=False, timeout=ANSWER_S):
            raise FileNotFoundError(
                f"{self.prefix} cannot write to {directory or accepted or 'an empty path'}: "
                "set beamline.file_directory to a folder that the detector's machine can write to"
            )
        name = "-".join(part for part in (time.strftime("%Y%m%d-%H%M%S"), uuid.uuid4().hex[:8], label) if part)
        for signal, value in (
            (self.file_name, name),
            (self.file_template, TEMPLATE),
            (self.auto_increment, 0),
            (self.file_number, 0),
            (self.auto_save, 1),
            (self.file_write_mode, STREAM),
            (self.num_capture, frames),
        ):
            signal.put(value, wait=True, timeout=PUT_TIMEOUT_S)
        path = TEMPLATE % (accepted, name, 0)
        # Capture is a busy record: its put completes when the last frame is written, so watch the read-back instead.
        capturing = SubscriptionStatus(self.capture, lambda *, value, **_: value == 1, timeout=PUT_TIMEOUT_S)
        # Whoever waits for this file's frames must not see the number of the last one's.
        emptied = SubscriptionStatus(self.num_captured, lambda *, value, **_: value == 0, timeout=PUT_TIMEOUT_S)
        self.capture.put(1, wait=False)
        try:
            (capturing & emptied).wait()
        except Exception as error:
            raise OSError(f"{self.prefix} did not open {path}: {self.write_message.get() or error}") from error
        return path

    def close_file(self) -> None:
        """Close the file, if one is open."""
        if not self.capture.get(use_monitor=False, timeout=ANSWER_S):
            return
        closed = SubscriptionStatus(self.capture, lambda *, value, **_: value == 0, timeout=PUT_TIMEOUT_S)
        self.capture.put(0, wait=False)
        closed.wait()
