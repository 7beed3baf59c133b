"""RunIntake: the documents of one run in, messages about its frames out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from event_model import DocumentRouter, unpack_datum_page, unpack_event_page

from bluesky_jit.intake.angles import Angles, RunAngles
from bluesky_jit.intake.assets import filed_asset, frames_per_point, streamed_asset, time_stamps_of
from bluesky_jit.intake.dialects import (
    STREAM_KINDS,
    StreamKeys,
    image_key,
    is_tomography,
    read_stream,
    tells_tomography,
    tomo_of,
)
from bluesky_jit.intake.foreign_plans import borrowed
from bluesky_jit.intake.frames import unix_times
from bluesky_jit.intake.history import CAUGHT_UP
from bluesky_jit.intake.monitors import FramesInOrder
from bluesky_jit.intake.pages import call_all
from bluesky_jit.intake.streams import StreamColumns, numbered_row
from bluesky_jit.intake.undecided import HeldDocuments
from bluesky_jit.intake.unlocated import Locations
from bluesky_jit.messages import (
    Asset,
    AssetFrames,
    FrameKind,
    FrameMessage,
    InlineFrames,
    Problem,
    Record,
    RunMessage,
    RunStart,
    RunStop,
)
from bluesky_jit.settings import Settings

logger = logging.getLogger(__name__)


class Receiver(Protocol):
    """Take messages without blocking: a Session."""

    @property
    def settings(self) -> Settings: ...

    def submit(self, message: RunMessage) -> None: ...


class RunIntake(DocumentRouter):
    """Turn the documents of one run into messages.

    A run without a `tomo` block is opened when its first frames are announced; one whose plan is not known either, when
    a stream shows that it is a tomography. Of other runs nothing is heard.
    """

    def __init__(self, session: Receiver, *, clock: Callable[[], float] = time.time) -> None:
        """Begin without documents; clock: tells when documents came that do not say when their frames were taken."""
        super().__init__()
        self._submit = session.submit
        self._settings = session.settings
        self._clock = clock
        self._start: dict[str, Any] = {}
        self._tomo: dict[str, Any] | None = None
        self._opened = False
        self._undecided = HeldDocuments()
        self._angles = RunAngles({}, {}, self._settings, self._tell)
        self._order = FramesInOrder(self._submit, self._settings.intake.queue_frames)
        self._streams: dict[str, StreamKeys] = {}
        self._columns: dict[str, StreamColumns] = {}
        self._locations = Locations()
        self._rows: dict[str, int] = {}
        self._names: set[str] = set()
        self._pictures_elsewhere = False
        self._brought_frames = False
        self._told: set[str] = set()

    def __call__(self, name: str, doc: Any, validate: bool = False) -> Any:
        if name != "start" and self._tomo is None:
            return name, self._while_undecided(name, doc)
        return super().__call__(name, doc, validate)

    # ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, doc: Any) -> None:
        self._start = doc
        self._decide(tomo_of(doc, self._settings))
        if is_tomography(doc):
            self._open()

    def _decide(self, tomo: dict[str, Any] | None) -> None:
        self._tomo = tomo
        if tomo is not None:
            self._angles = RunAngles(tomo, self._start, self._settings, self._tell)

    def _while_undecided(self, name: str, doc: Any) -> Any:
        """Hold a document, until a stream shows that the run is a tomography."""
        if name == "stop":
            self._undecided.take()
            logger.debug("run %s is no tomography: neither its plan nor a stream says so", self._start.get("uid"))
            return doc
        self._undecided.put(name, doc)
        if name == "descriptor" and tells_tomography(doc):
            self._decide(borrowed(self._start))
            if self._undecided.dropped:
                self._tell(
                    f"{self._undecided.dropped} events came before the run showed that it is a tomography, and could "
                    f"not be kept: name its plan, {self._start.get('plan_name')!r}, in intake.plans",
                    severity="MAJOR",
                )
            call_all(self, self._undecided.take())
        return doc

    def _open(self) -> None:
        """Tell the session of the run."""
        if self._opened or self._tomo is None:
            return
        self._opened = True
        doc, tomo = self._start, dict(self._tomo)
        assumed = tomo.pop("assumed", "")
        self._submit(
            RunStart(
                run_uid=doc["uid"],
                scan_id=int(doc.get("scan_id", 0)),
                plan_name=str(doc.get("plan_name", "")),
                time_s=float(doc["time"]),
                tomo=tomo,
                expected_projections=int(doc["num_points"]) if doc.get("num_points") else None,
                caught_up=bool(doc.get(CAUGHT_UP)),
            )
        )
        if assumed:
            self._tell(assumed)

    def stop(self, doc: Any) -> None:
        self._order.release(everything=True)
        unlocated, missing = self._count_unlocated(), self._locations.missing()
        if unlocated and missing:
            n = sum(unlocated.values())
            frames = "1 frame was" if n == 1 else f"{n} frames were"
            self._tell(
                f"{frames} announced, and where they are did not come ({missing}): they are not in the slices; look at "
                "the way that documents take, and replay the run from its record",
                severity="MAJOR",
            )
        elif doc["exit_status"] == "success" and (self._opened or self._pictures_elsewhere):
            self._report_what_is_missing()
        if not self._opened:
            return
        self._submit(
            RunStop(
                run_uid=doc["run_start"],
                time_s=float(doc["time"]),
                exit_status=str(doc["exit_status"]),
                reason=str(doc.get("reason", "")),
                unlocated=unlocated,
            )
        )

    def _count_unlocated(self) -> dict[FrameKind, int]:
        """Count the announced frames of which nobody knows where they are."""
        frames: dict[FrameKind, int] = {}
        for uid, keys in self._streams.items():
            rows = self._columns[uid].incomplete(self._locations.rows_of(uid))
            if rows:
                frames[keys.kind] = frames.get(keys.kind, 0) + rows * keys.frames_per_row
        return frames

    def _report_what_is_missing(self) -> None:
        """Say why a run that went well brought no frames, or not all columns of them."""
        waiting = sorted({key for columns in self._columns.values() for key in columns.waiting()})
        if waiting:
            self._tell(f"rows of {', '.join(waiting)} came without the stream's other columns: frames are lost")
        if not self._brought_frames:
            streams = ", ".join(sorted(self._names)) or "none"
            self._tell(
                f"the run brought no frames: its streams are {streams}; frames are looked for as pictures in streams "
                f"named {', '.join(STREAM_KINDS)}"
            )

    def descriptor(self, doc: Any) -> None:
        if doc["uid"] in self._streams or self._tomo is None:
            return
        self._names.add(str(doc.get("name")))
        keys = read_stream(doc, self._tomo, self._start, self._settings.intake)
        if keys is None:
            self._pictures_elsewhere |= bool(image_key(doc["data_keys"]))
            self._angles.watch(doc)
            return
        self._open()
        self._streams[doc["uid"]] = keys
        wanted = (keys.image, keys.angle if keys.angle_external else "", keys.unique_id, keys.frame_time)
        self._columns[doc["uid"]] = StreamColumns(
            key for key in wanted if key and str(doc["data_keys"][key].get("external", "")).startswith("STREAM:")
        )

    # ── frames in files, by stream_resource and stream_datum ─────────────────────────────────────────────────────────

    def stream_resource(self, doc: Any) -> None:
        call_all(self.stream_datum, [(datum,) for datum in self._locations.add("stream_resource", doc["uid"], doc)])

    def stream_datum(self, doc: Any) -> None:
        keys = self._streams.get(doc["descriptor"])
        if keys is None:
            return
        resource = self._locations.find("stream_resource", doc["stream_resource"], doc)
        if resource is None:
            return
        columns = self._columns[doc["descriptor"]]
        first, stop = int(doc["indices"]["start"]), int(doc["indices"]["stop"])
        asset = streamed_asset(resource, first, stop - first)
        ready = columns.add(resource["data_key"], asset, numbered_row(doc))
        for row, assets in ready:
            self._streamed_frames(keys, row, assets)

    def _streamed_frames(self, keys: StreamKeys, row: int, assets: Mapping[str, Asset]) -> None:
        per_row = keys.frames_per_row

        def column(key: str) -> Asset | None:
            asset = assets.get(key)
            if asset is None:
                return None
            record = Record(stream=keys.stream, key=key, first=row * per_row)
            return replace(asset, first=asset.first * per_row, count=asset.count * per_row, record=record)

        image = column(keys.image)
        if image is None:
            return
        angle, frame_time = column(keys.angle), column(keys.frame_time)
        paired = angle is not None and keys.angles_per_row == per_row
        if angle is not None and not paired:
            self._tell(
                f"stream {keys.stream!r} has {per_row} frames and {keys.angles_per_row} angles ({keys.angle!r}) an "
                "event: nobody can tell which belong together, so its projections are left out",
                severity="MAJOR",
            )
            angles = self._angles.unknown(image.count)
        else:
            angles = self._angles.of_frames(
                keys, row * per_row, image.count, recorded=paired, times_known=frame_time is not None
            )
        self._submit_frames(
            AssetFrames(
                run_uid=self._start["uid"],
                kind=keys.kind,
                image=image,
                angle=angle if paired else None,
                unique_id=column(keys.unique_id),
                frame_time=frame_time,
                angle_scale=keys.angle_scale,
                angles_rad=angles.rad,
                angle_source=angles.source,
                document_time_s=float(self._start["time"]),
            ),
            angles,
            # Its rows were written before this document came.
            until_s=self._clock() if angles.monitor else 0.0,
        )

    # ── frames in events, or in files by resource and datum ──────────────────────────────────────────────────────────

    def resource(self, doc: Any) -> None:
        call_all(self.event, [(event,) for event in self._locations.add("resource", doc["uid"], doc)])

    def datum(self, doc: Any) -> Any:
        call_all(self.event, [(event,) for event in self._locations.add("datum", doc["datum_id"], doc)])

    def datum_page(self, doc: Any) -> Any:
        call_all(self.datum, [(datum,) for datum in unpack_datum_page(doc)])

    def event_page(self, doc: Any) -> Any:
        call_all(self.event, [(event,) for event in unpack_event_page(doc)])

    def event(self, doc: Any) -> Any:
        keys = self._streams.get(doc["descriptor"])
        if keys is None:
            if self._angles.sample(doc):
                self._order.release()
        elif keys.image in doc["data"]:
            frames = self._filed_event if isinstance(doc["data"][keys.image], str) else self._inline_event
            frames(keys, doc)

    def _row(self, keys: StreamKeys, event: Mapping[str, Any], n: int) -> int:
        """Return the number in the stream of an event's first frame."""
        counted = self._rows.get(keys.stream, 0)
        row = (int(event["seq_num"]) - 1) * n if "seq_num" in event else counted
        self._rows[keys.stream] = row + n
        return row

    def _inline_event(self, keys: StreamKeys, event: Mapping[str, Any]) -> None:
        counts = np.asarray(event["data"][keys.image])
        counts = counts.reshape(-1, *counts.shape[-2:])
        n = len(counts)
        row, data = self._row(keys, event, n), event["data"]
        times_s = _one_each(event["timestamps"].get(keys.image, event["time"]), n, step=0)
        timed = n == 1
        if keys.frame_time in data and not isinstance(data[keys.frame_time], str):
            timed = np.size(data[keys.frame_time]) == n
            times_s = unix_times(_one_each(data[keys.frame_time], n, step=0), float(event["time"]))
        angles = self._angles.of_event(keys, row, n, event, times_known=timed)
        self._submit_frames(
            InlineFrames(
                run_uid=self._start["uid"],
                kind=keys.kind,
                counts=counts,
                unique_ids=_one_each(data.get(keys.unique_id, row), n, step=1).astype(np.int64),
                frame_times_s=times_s,
                angles_rad=angles.rad,
                angle_source=angles.source,
                numbered=keys.unique_id in data,
            ),
            angles,
            until_s=float(times_s.max()),
        )

    def _filed_event(self, keys: StreamKeys, event: Mapping[str, Any]) -> None:
        data = event["data"]
        pointers = {
            key: data[key] for key in (keys.image, keys.angle, keys.frame_time) if isinstance(data.get(key), str)
        }
        places: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
        for key, pointer in pointers.items():
            place = self._locations.find_filed(pointer, event)
            if place is None:
                # It is taken up again when that comes.
                return
            places[key] = place
        n = frames_per_point(places[keys.image][0], keys.frames_per_row)
        row = self._row(keys, event, n)
        filed = {key: filed_asset(*place, n) for key, place in places.items()}
        image, angle, frame_time = filed[keys.image], filed.get(keys.angle), filed.get(keys.frame_time)
        angles = self._angles.of_event(keys, row, n, event, times_known=True, filed=angle is not None)
        self._submit_frames(
            AssetFrames(
                run_uid=self._start["uid"],
                kind=keys.kind,
                image=image,
                angle=angle,
                unique_id=None,
                # Nobody but the monitor needs time stamps that no document tells of.
                frame_time=frame_time or (time_stamps_of(image) if angles.monitor else None),
                angle_scale=keys.angle_scale,
                angles_rad=angles.rad,
                angle_source=angles.source,
                document_time_s=float(event["time"]),
            ),
            angles,
            until_s=float(event["time"]),
        )

    def _submit_frames(self, message: FrameMessage, angles: Angles, *, until_s: float) -> None:
        self._brought_frames = True
        self._order.put(message, until_s=until_s, monitor=angles.monitor)

    def _tell(self, text: str, *, severity: str = "MINOR") -> None:
        """Tell people of a problem, once a run."""
        if text in self._told:
            return
        self._told.add(text)
        logger.warning(text)
        self._submit(
            Problem(text=text, severity="MAJOR" if severity == "MAJOR" else "MINOR", run_uid=self._start.get("uid", ""))
        )


def _one_each(value: Any, n: int, *, step: int) -> np.ndarray:
    """Return one value a frame: those that came, or else the first one counted on by `step`."""
    values = np.atleast_1d(np.asarray(value, dtype=np.float64))
    return values if len(values) == n else values[0] + step * np.arange(n)
