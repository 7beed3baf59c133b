"""Ask Tiled for what was missed of runs that were joined late, in a thread, for Tiled takes seconds to answer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from bluesky_jit.archive import address, connect_now, raw_catalog, without_key
from bluesky_jit.intake.late_run import LateRun, RecordedRun
from bluesky_jit.intake.late_stream import RecordedColumn, RecordedStream
from bluesky_jit.settings_sections import TiledSettings

logger = logging.getLogger(__name__)

FIND_S = 30.0
"""How long Tiled may take to have a run: records are written in batches, and in a thread of their own."""
WHOLE_S = 60.0
"""How long after its stop document a run's record may take to be whole."""
ASK_S = 0.5
LONGEST_ASK_S = 15.0
"""Time between two questions: longer while nothing new comes."""
CLOSE_S = 1.0
RUNS_LOOKED_AT = 8
"""A run that still goes on is among the newest."""
EVENTS_AT_ONCE = 25
"""Events whose arrays are fetched at a time: a long scan never fills the memory."""


class Receiver(Protocol):
    """Take what was learned of a late run: JITCallback. `lost` says why nothing, or nothing more, will come."""

    def learned(self, late: LateRun, record: RecordedRun) -> bool: ...

    def lost(self, late: LateRun, reason: str) -> None: ...


class CatchUp:
    """Look for the records of late runs in Tiled, again and again until they are whole."""

    def __init__(
        self,
        settings: TiledSettings,
        *,
        find_s: float = FIND_S,
        whole_s: float = WHOLE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._find_s, self._whole_s = find_s, whole_s
        self._clock = clock
        self._changed = threading.Condition()
        self._asked: list[_Question] = []
        self._closing = False
        self._thread: threading.Thread | None = None
        self._catalog: Any = None

    def ask(self, late: LateRun, receiver: Receiver) -> None:
        """Look for a run from now on."""
        with self._changed:
            self._asked.append(_Question(late, receiver, since_s=self._clock()))
            if self._thread is None:
                self._thread = threading.Thread(target=self._answer_for_ever, name="jit-catch-up", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self) -> None:
        """Ask no more."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            # It has nothing to lose; a server that does not answer is left behind.
            self._thread.join(CLOSE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer_for_ever(self) -> None:
        try:
            self._answer_until_closed()
        finally:
            self._disconnect()

    def _answer_until_closed(self) -> None:
        while True:
            with self._changed:
                now_s = self._clock()
                due = [each for each in self._asked if each.due_s <= now_s]
                if not self._closing and not due:
                    next_s = min((each.due_s for each in self._asked), default=now_s + LONGEST_ASK_S)
                    self._changed.wait(max(next_s - now_s, 0.01))
                if self._closing:
                    return
            for question in due:
                if self._answer(question):
                    with self._changed:
                        self._asked.remove(question)
            if due and not self._asked:
                self._disconnect()

    def _answer(self, question: _Question) -> bool:
        """Ask once; return whether there is nothing left to ask."""
        late, receiver = question.late, question.receiver
        if late.over:
            return True
        news = False
        try:
            record = self._record(late)
        except Exception as error:
            # Whatever a server says: the run goes on, and it is asked again.
            self._disconnect()
            question.reason = without_key(str(error), self._settings.api_key).partition("\n")[0]
            logger.debug("Tiled could not be asked for a run that was joined late", exc_info=True)
            record = None
        if record is not None:
            news = receiver.learned(late, record)
        now_s = self._clock()
        if late.over:
            return True
        if not late.uid:
            if now_s - question.since_s > self._find_s:
                place = address(self._settings.uri)
                receiver.lost(late, f"Tiled at {place} does not have it{question.reason and f' ({question.reason})'}")
                return True
        elif late.ending:
            question.ending_s = min(question.ending_s, now_s)
            if now_s - question.ending_s > self._whole_s:
                receiver.lost(late, f"its record in Tiled at {address(self._settings.uri)} is not whole")
                return True
        question.wait_s = ASK_S if news or late.ending else min(2 * question.wait_s, LONGEST_ASK_S)
        question.due_s = now_s + question.wait_s
        return False

    def _disconnect(self) -> None:
        if self._catalog is not None:
            self._catalog.context.close()
            self._catalog = None

    def _record(self, late: LateRun) -> RecordedRun | None:
        if self._catalog is None:
            self._catalog = raw_catalog(connect_now(self._settings))
        run = self._catalog[late.uid] if late.uid else find_run_of(self._catalog, late)
        return None if run is None else read_record(run, late.events_had)


class _Question:
    """Remember how a late run was asked for."""

    def __init__(self, late: LateRun, receiver: Receiver, *, since_s: float) -> None:
        self.late = late
        self.receiver = receiver
        self.since_s = since_s
        self.due_s = since_s
        self.wait_s = ASK_S
        self.ending_s = float("inf")
        self.reason = ""


def find_run_of(catalog: Any, late: LateRun) -> Any:
    """Return the run that what was heard belongs to, or None while it is not recorded."""
    for uid in list(late.run_uids):
        if uid in catalog:
            return catalog[uid]
    wanted = set(late.references)
    for run in reversed(catalog.values().tail(RUNS_LOOKED_AT)):
        for stream in run.values():
            if any(descriptor["uid"] in wanted for descriptor in getattr(stream, "descriptors", ())):
                return run
    return None


def read_record(run: Any, events_had: Mapping[str, int]) -> RecordedRun:
    """Read what Tiled has of a run; events_had: up to which number the events of its streams are known."""
    streams = [
        _read_stream(stream, events_had.get(name, 0)) for name, stream in run.items() if hasattr(stream, "descriptors")
    ]
    more = any(stream.events and len(stream.events) == EVENTS_AT_ONCE for stream in streams)
    return RecordedRun(
        start=dict(run.metadata["start"]),
        streams=tuple(sorted(streams, key=lambda each: float(each.descriptors[0]["time"]))),
        stop=None if more else run.metadata.get("stop"),
    )


def _read_stream(stream: Any, events_had: int) -> RecordedStream:
    descriptors = tuple(dict(each) for each in stream.descriptors)
    parts = dict(stream.base.items())
    table = parts.pop("internal", None)
    filed = {key for key, value in descriptors[0]["data_keys"].items() if "external" in value}
    columns = {}
    for key in filed & parts.keys():
        [source] = parts[key].include_data_sources().data_sources()
        assets = sorted(source.assets, key=lambda asset: asset.num or 0)
        columns[key] = RecordedColumn(
            uris=tuple(str(asset.data_uri) for asset in assets),
            parameters=dict(source.parameters),
            rows=int(parts[key].shape[0]),
        )
    arrays = {key: part for key, part in parts.items() if key not in filed}
    events = () if table is None else tuple(_events(table, arrays, descriptors, events_had))
    return RecordedStream(descriptors=descriptors, columns=columns, events=events)


def _events(
    table: Any, arrays: Mapping[str, Any], descriptors: tuple[dict[str, Any], ...], had: int
) -> Iterable[dict[str, Any]]:
    """Yield the events after number `had`, a few at a time when they carry arrays."""
    data_keys = descriptors[0]["data_keys"]
    rows = table.read().to_dict(orient="records")
    rows = sorted((row for row in rows if row["seq_num"] > had), key=lambda row: row["seq_num"])
    rows = rows[:EVENTS_AT_ONCE] if arrays else rows
    # Arrays are written before their rows are, so that each has at least as many.
    images = {key: np.asarray(part[had : had + len(rows)]) for key, part in arrays.items()} if rows else {}
    for index, row in enumerate(rows):
        data = {key: _plain(value) for key, value in row.items() if key in data_keys}
        data |= {key: image[index] for key, image in images.items() if index < len(image)}
        # Settings may have been told anew in mid-stream.
        descriptor = max(
            (each for each in descriptors if each["time"] <= row["time"]), key=_time, default=descriptors[0]
        )
        yield {
            "uid": f"caught-up-{descriptor['uid']}-{row['seq_num']}",
            "descriptor": descriptor["uid"],
            "seq_num": int(row["seq_num"]),
            "time": float(row["time"]),
            "data": data,
            "timestamps": {key: float(row.get(f"ts_{key}", row["time"])) for key in data},
            "filled": {},
        }


def _time(descriptor: Mapping[str, Any]) -> float:
    return float(descriptor["time"])


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
