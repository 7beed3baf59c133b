"""Write a linked run per raw run into Tiled, by way of the disk: nothing is lost and nobody waits while it is away."""

from __future__ import annotations

import logging
import queue
import shutil
import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from bluesky_tiled_plugins import TiledWriter

from bluesky_jit.archive import address, connect, jit_catalog, spill_directory, without_key
from bluesky_jit.messages import Problem, RunOpened, RunStop, SessionStatus, SinkMessage, Update
from bluesky_jit.publish.linked_run import LinkedRun
from bluesky_jit.publish.run_folder import Document, RunFolder, RunRecord, left_behind
from bluesky_jit.settings_sections import TiledSettings

logger = logging.getLogger(__name__)

QUEUE = 256
"""Documents that may wait for the disk; beyond it, updates are left out."""
MANY = 64
"""Documents that wait on disk while Tiled is away, or too slow."""
LEAST_FREE = 0.05
LEAST_FREE_BYTES = 10e9
"""Waiting records leave that part of their disk free, or so much where that is less: others write there, too."""
REACH_S = 2.0
RETRY_S = 1.0
LONGEST_RETRY_S = 30.0
REASON_LENGTH = 100
"""Characters of a server's own words that fit into a message."""


class TiledSink:
    """Record runs in Tiled.

    Two threads: `tiled-record` puts every document on disk at once, `tiled-write` sends them on in its own time. The
    documents of a run stay on disk until all of them are in Tiled; after a failure it is written afresh from there.

    report: told once when records begin to wait, once when they flow again, and once a run when some are left out.
    """

    def __init__(self, settings: TiledSettings, report: Callable[[Problem], None] | None = None) -> None:
        self._settings = settings
        self._report = report or _log
        self._directory = spill_directory(settings)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._runs: dict[str, tuple[LinkedRun, RunRecord]] = {}
        self._queue: queue.Queue[tuple[RunRecord, Document] | None] = queue.Queue()
        self._changed = threading.Condition()
        self._outgoing = [_Outgoing(folder) for folder in left_behind(self._directory)]
        if self._outgoing:
            logger.info("records of %d earlier runs are sent to Tiled now", len(self._outgoing))
        starts = [each.folder.read(0)[1] for each in self._outgoing]
        self._broken_off = {str(start["raw_run"]): str(start["uid"]) for start in starts if "raw_run" in start}
        """By raw run, the linked run of a session that died in the middle of it."""
        self._catalog: Any = None
        self._closing = False
        self._deadline_s = float("inf")
        self._away = False
        self._dropping = False
        self.dropped = 0
        """Updates, figures and records that the disk did not take."""
        self._recorder = threading.Thread(target=self._record_for_ever, name="tiled-record", daemon=True)
        self._writer = threading.Thread(target=self._write_for_ever, name="tiled-write", daemon=True)
        self._recorder.start()
        self._writer.start()

    @property
    def waiting(self) -> int:
        """Return how many documents are not in Tiled yet."""
        with self._changed:
            return self._queue.qsize() + sum(run.waiting for run in self._outgoing)

    def is_alive(self) -> bool:
        """Say whether documents are still being sent."""
        return self._writer.is_alive()

    def publish(self, message: SinkMessage) -> None:
        """Take a message; what is worth a record is put on its way to the disk."""
        match message:
            case RunOpened():
                self._open(message)
            case Update() | SessionStatus() if message.run_uid in self._runs:
                # Before anything is composed of it: what is left out leaves no gap in the rest.
                if self._queue.qsize() >= QUEUE:
                    self._drop("is too slow")
                    return
                run, record = self._runs[message.run_uid]
                self._enqueue(record, run.update(message) if isinstance(message, Update) else run.status(message))
            case RunStop() if message.run_uid in self._runs:
                run, record = self._runs.pop(message.run_uid)
                self._enqueue(record, run.stop(message))

    def close(self, timeout_s: float = 10.0) -> int:
        """Stop, after at most `timeout_s`; return how many documents are left on disk for the next session."""
        for uid in list(self._runs):
            self.publish(RunStop(run_uid=uid, time_s=time.time(), exit_status="abort", reason="the session ended"))
        self._deadline_s = time.monotonic() + timeout_s
        self._queue.put(None)
        self._recorder.join(timeout_s)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._writer.join(max(self._deadline_s - time.monotonic(), 0.0))
        left = self.waiting
        if left:
            logger.warning(
                "%d documents are not in Tiled yet: they wait in %s and are sent when a session next starts with the "
                "same tiled.uri",
                left,
                self._directory,
            )
        return left

    def _open(self, opened: RunOpened) -> None:
        continues = self._broken_off.pop(opened.start.run_uid, "")
        run = LinkedRun(opened, time_s=time.time(), continues=continues)
        folder = RunFolder(self._directory / run.uid)
        record = RunRecord(folder)
        self._runs[opened.start.run_uid] = run, record
        with self._changed:
            self._outgoing.append(_Outgoing(folder))
        self._enqueue(record, run.start())
        self._dropping = False

    def _enqueue(self, record: RunRecord, documents: list[Document]) -> None:
        for document in documents:
            self._queue.put((record, document))

    def _record_for_ever(self) -> None:
        while (item := self._queue.get()) is not None:
            record, (name, document) = item
            try:
                if name == "event" and self._is_nearly_full:
                    self._drop("is nearly full")
                else:
                    record.add(name, document)
            except OSError as error:
                self._drop(f"takes nothing ({error})")
            with self._changed:
                self._changed.notify_all()

    @property
    def _is_nearly_full(self) -> bool:
        """Tell whether no more documents are to wait on disk: a run's start and stop always may."""
        if self.waiting < MANY:
            return False
        usage = shutil.disk_usage(self._directory)
        return usage.free < min(LEAST_FREE * usage.total, LEAST_FREE_BYTES)

    def _drop(self, why: str) -> None:
        self.dropped += 1
        if self._dropping:
            return
        self._dropping = True
        self._report(
            Problem(
                text=f"the disk under {self._directory} {why}, so Tiled records of this run are left out: free some "
                "space, or set tiled.spill_directory to another disk",
                severity="MAJOR",
            )
        )

    def _write_for_ever(self) -> None:
        try:
            self._write_until_closed()
        finally:
            self._disconnect()
            for run in self._outgoing:
                run.folder.close()

    def _write_until_closed(self) -> None:
        while True:
            with self._changed:
                runs = list(self._outgoing)
            now_s = time.monotonic()
            due = [run for run in runs if run.waiting and run.retry_s <= now_s]
            for run in due:
                self._advance(run)
            with self._changed:
                left = [run for run in self._outgoing if run.waiting]
                if self._closing and (not left or time.monotonic() > self._deadline_s):
                    return
                if not due:
                    next_s = min((run.retry_s for run in left), default=now_s + LONGEST_RETRY_S)
                    self._changed.wait(max(next_s - now_s, 0.01))

    def _advance(self, run: _Outgoing) -> None:
        try:
            _reach(self._settings.uri)
            if self._catalog is None:
                self._catalog = jit_catalog(connect(self._settings))
            done = run.send_next(self._catalog)
        except Exception as error:
            run.failed()
            self._disconnect()
            logger.debug("%d documents wait in %s", run.waiting, run.folder.path, exc_info=True)
            self._records_wait(error)
            return
        if done:
            with self._changed:
                self._outgoing.remove(run)
                self._changed.notify_all()
        if self._away and not any(each.failures for each in self._outgoing):
            self._away = False
            self._report(Problem(text="Tiled takes records again", severity="NO_ALARM", lasts="Tiled"))

    def _records_wait(self, error: Exception) -> None:
        if self._away:
            return
        self._away = True
        reason = without_key(f"{type(error).__name__}: {error}", self._settings.api_key)
        reason = reason.partition("\n")[0][:REASON_LENGTH]
        self._report(
            Problem(
                text=f"Tiled at {address(self._settings.uri)} does not take records ({reason}; see tiled.uri, "
                f"tiled.api_key): they wait in {self._directory} until it does",
                lasts="Tiled",
            )
        )

    def _disconnect(self) -> None:
        if self._catalog is not None:
            self._catalog.context.close()
            self._catalog = None


class _Outgoing:
    """Send one run's folder to Tiled, document by document; start afresh after a failure."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.failures = 0
        self.retry_s = 0.0
        self._written = 0
        self._failed_at = 0
        self._writer: TiledWriter | None = None

    @property
    def waiting(self) -> int:
        return self.folder.count - self._written

    def send_next(self, catalog: Any) -> bool:
        """Write the next document; say whether the run is complete."""
        name, document = self.folder.read(self._written)
        if self._writer is None:
            if document["uid"] in catalog:
                catalog.delete_contents(document["uid"], recursive=True, external_only=False)
            self._writer = _SliceWriter(catalog, normalizer=None, batch_size=1)
        self._writer(name, document)
        if name == "stop":
            _verify(catalog[self.folder.path.name], document["num_events"])
            self.folder.remove()
        self._written += 1
        # Not before it is past the document that failed: a run that is refused again and again is a failure throughout.
        if self._written > self._failed_at:
            self.failures = 0
        return name == "stop"

    def failed(self) -> None:
        """Begin again from the first document, a while from now."""
        self.failures += 1
        self.retry_s = time.monotonic() + min(RETRY_S * 2 ** (self.failures - 1), LONGEST_RETRY_S)
        self._writer = None
        self._failed_at = self._written
        self._written = 0


class _SliceWriter(TiledWriter):
    """Name the dimensions of slices (time, y, x): by size, as TiledWriter does, a square slice has one name twice."""

    def _factory(self, name: str, doc: dict[str, Any]) -> tuple[list[Any], list[Any]]:
        writers, rest = super()._factory(name, doc)
        for writer in writers:
            vars(writer)["_internal_dims"] = lambda stream, shape: ("time", *("z", "y", "x")[-(len(shape) - 1) :])
        return writers, rest


def _log(problem: Problem) -> None:
    logger.warning(problem.text)


def _reach(uri: str) -> None:
    """Raise OSError when nobody answers: Tiled's client by itself would try again for most of a minute."""
    parts = urlsplit(uri)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    socket.create_connection((parts.hostname or "", port), timeout=REACH_S).close()


def _verify(run: Any, num_events: dict[str, int]) -> None:
    """Check that every event is there once (a client that retries may write one twice)."""
    for stream, count in num_events.items():
        found = len(run[stream]["seq_num"].read())
        if found != count:
            raise ValueError(f"stream {stream} of run {run.metadata['start']['uid']} has {found} events, not {count}")
