"""RunIntake: the documents of one run in, messages about its frames out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np
from event_model import DocumentRouter

from bluesky_jit.intake.dialects import STREAM_KINDS, StreamKeys, asked_angle_key, even_steps_rad, read_stream
from bluesky_jit.intake.frames import unix_times
from bluesky_jit.intake.streams import StreamColumns
from bluesky_jit.messages import Asset, AssetFrames, InlineFrames, Problem, RunMessage, RunStart, RunStop
from bluesky_jit.settings import Settings
from bluesky_jit.settings_sections import IntakeSettings

logger = logging.getLogger(__name__)


class Receiver(Protocol):
    """Take messages without blocking: a Session."""

    @property
    def settings(self) -> Settings: ...

    def submit(self, message: RunMessage) -> None: ...


class RunIntake(DocumentRouter):
    """Turn the documents of one run into messages."""

    def __init__(self, session: Receiver) -> None:
        super().__init__()
        self._submit = session.submit
        self._settings: IntakeSettings = session.settings.intake
        self._angles_per_turn_setting = session.settings.tomo.angles_per_turn
        self._start: dict[str, Any] = {}
        self._streams: dict[str, StreamKeys] = {}
        self._columns: dict[str, StreamColumns] = {}
        self._resources: dict[str, dict[str, Any]] = {}
        self._datums: dict[str, dict[str, Any]] = {}
        self._rows: dict[str, int] = {}
        self._names: set[str] = set()
        self._brought_frames = False

    # ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, doc: Any) -> None:
        self._start = doc
        self._submit(
            RunStart(
                run_uid=doc["uid"],
                scan_id=int(doc.get("scan_id", 0)),
                plan_name=str(doc.get("plan_name", "")),
                time_s=float(doc["time"]),
                tomo=dict(doc["tomo"]),
                expected_projections=int(doc["num_points"]) if doc.get("num_points") else None,
            )
        )

    def stop(self, doc: Any) -> None:
        if doc["exit_status"] == "success":
            self._report_what_is_missing()
        self._submit(
            RunStop(
                run_uid=doc["run_start"],
                time_s=float(doc["time"]),
                exit_status=str(doc["exit_status"]),
                reason=str(doc.get("reason", "")),
            )
        )

    def _report_what_is_missing(self) -> None:
        """Say why a run that went well brought no frames, or not all columns of them."""
        waiting = sorted({key for columns in self._columns.values() for key in columns.waiting()})
        if waiting:
            self._problem(f"rows of {', '.join(waiting)} came without the stream's other columns: frames are lost")
        if not self._brought_frames:
            streams = ", ".join(sorted(self._names)) or "none"
            self._problem(
                f"the run brought no frames: its streams are {streams}; frames are looked for as pictures in streams "
                f"named {', '.join(STREAM_KINDS)}"
            )

    def descriptor(self, doc: Any) -> None:
        if doc["uid"] in self._streams:
            return
        self._names.add(str(doc.get("name")))
        keys = read_stream(doc, self._start["tomo"], self._start, self._settings)
        if keys is None:
            logger.debug("stream %r carries no frames", doc.get("name"))
            return
        asked = asked_angle_key(self._start["tomo"], self._settings)
        if keys.kind == "projection" and asked and not keys.angle:
            self._problem(
                f"angle key {asked!r} is not in stream {doc.get('name')!r}, "
                f"which has {', '.join(sorted(doc['data_keys']))}: "
                "correct tomo.angle_key or intake.angle_key; even steps are used instead, if the scan made any"
            )
        self._streams[doc["uid"]] = keys
        wanted = (keys.image, keys.angle if keys.angle_external else "", keys.unique_id, keys.frame_time)
        self._columns[doc["uid"]] = StreamColumns(
            key for key in wanted if key and str(doc["data_keys"][key].get("external", "")).startswith("STREAM:")
        )

    # ── frames in files, by stream_resource and stream_datum ─────────────────────────────────────────────────────────

    def stream_resource(self, doc: Any) -> None:
        self._resources[doc["uid"]] = doc

    def stream_datum(self, doc: Any) -> None:
        resource = self._resources[doc["stream_resource"]]
        keys = self._streams.get(doc["descriptor"])
        if keys is None:
            return
        columns = self._columns[doc["descriptor"]]
        first, stop = int(doc["indices"]["start"]), int(doc["indices"]["stop"])
        # Events count from 1; documents that a RunEngine has not numbered say 0 to 0.
        numbers = doc.get("seq_nums") or {"start": 0, "stop": 0}
        numbered = numbers["stop"] - numbers["start"] == stop - first
        row = int(numbers["start"]) - 1 if numbered else None
        ready = columns.add(resource["data_key"], self._asset(resource, first, stop - first), row)
        for row, assets in ready:
            self._submit_frames(self._asset_frames(keys, row, assets))

    def _asset(self, resource: Mapping[str, Any], first: int, count: int) -> Asset:
        parameters = resource.get("parameters", {})
        return Asset(
            uri=str(resource["uri"]),
            dataset=str(parameters.get("dataset", parameters.get("path", "/entry/data/data"))),
            first=first,
            count=count,
            swmr=bool(parameters.get("swmr", False)),
        )

    def _asset_frames(self, keys: StreamKeys, row: int, assets: Mapping[str, Asset]) -> AssetFrames:
        image = assets[keys.image]
        angle = assets.get(keys.angle)
        return AssetFrames(
            run_uid=self._start["uid"],
            kind=keys.kind,
            image=image,
            angle=angle,
            unique_id=assets.get(keys.unique_id),
            frame_time=assets.get(keys.frame_time),
            angle_scale=keys.angle_scale,
            angles_rad=None if angle or keys.kind != "projection" else self._even_steps(row, image.count),
            angle_source=keys.angle_source if angle else "plan arguments",
            document_time_s=float(self._start["time"]),
        )

    # ── frames in events, or in files by resource and datum ──────────────────────────────────────────────────────────

    def resource(self, doc: Any) -> None:
        self._resources[doc["uid"]] = doc

    def datum(self, doc: Any) -> Any:
        self._datums[doc["datum_id"]] = doc

    def event(self, doc: Any) -> Any:
        keys = self._streams.get(doc["descriptor"])
        if keys is None or keys.image not in doc["data"]:
            return
        row = self._rows.get(doc["descriptor"], 0)
        value = doc["data"][keys.image]
        message = (
            self._filed_event(keys, row, doc, value)
            if isinstance(value, str)
            else self._inline_event(keys, row, doc, value)
        )
        self._rows[doc["descriptor"]] = row + (
            message.image.count if isinstance(message, AssetFrames) else len(message.counts)
        )
        self._submit_frames(message)

    def _inline_event(self, keys: StreamKeys, row: int, event: Mapping[str, Any], value: Any) -> InlineFrames:
        counts = np.asarray(value)
        counts = counts.reshape(-1, *counts.shape[-2:])
        n = len(counts)
        data = event["data"]
        times_s = _one_each(event["timestamps"].get(keys.image, event["time"]), n, step=0)
        if keys.frame_time in data:
            times_s = unix_times(_one_each(data[keys.frame_time], n, step=0), float(event["time"]))
        return InlineFrames(
            run_uid=self._start["uid"],
            kind=keys.kind,
            counts=counts,
            unique_ids=_one_each(data.get(keys.unique_id, row), n, step=1).astype(np.int64),
            frame_times_s=times_s,
            angles_rad=self._event_angles(keys, row, n, event),
            angle_source=keys.angle_source,
            numbered=keys.unique_id in data,
        )

    def _filed_event(self, keys: StreamKeys, row: int, event: Mapping[str, Any], datum_id: str) -> AssetFrames:
        datum = self._datums[datum_id]
        resource = self._resources[datum["resource"]]
        kwargs = resource.get("resource_kwargs", {})
        count = int(kwargs.get("frame_per_point") or 1)
        path = "/".join([str(resource.get("root", "")).rstrip("/"), str(resource["resource_path"]).lstrip("/")])
        image = Asset(
            uri="file://localhost/" + quote(path.lstrip("/")),
            dataset="/entry/data/data",
            first=int(datum["datum_kwargs"].get("point_number", 0)) * count,
            count=count,
            swmr=bool(kwargs.get("swmr", False)),
        )
        return AssetFrames(
            run_uid=self._start["uid"],
            kind=keys.kind,
            image=image,
            angle=None,
            unique_id=None,
            frame_time=None,
            angle_scale=1.0,
            angles_rad=self._event_angles(keys, row, count, event),
            angle_source=keys.angle_source,
            document_time_s=float(event["time"]),
        )

    def _event_angles(self, keys: StreamKeys, row: int, count: int, event: Mapping[str, Any]) -> np.ndarray | None:
        if keys.kind != "projection":
            return None
        if keys.angle in event["data"]:
            angles = np.atleast_1d(np.asarray(event["data"][keys.angle], dtype=np.float64)) * keys.angle_scale
            return np.broadcast_to(angles, (count,)).copy()
        return self._even_steps(row, count)

    def _even_steps(self, row: int, count: int) -> np.ndarray:
        return even_steps_rad(self._start["tomo"], self._angles_per_turn_setting, row, count)

    def _submit_frames(self, message: InlineFrames | AssetFrames) -> None:
        self._brought_frames = True
        self._submit(message)

    def _problem(self, text: str) -> None:
        logger.warning(text)
        self._submit(Problem(text=text, run_uid=self._start.get("uid", "")))


def _one_each(value: Any, n: int, *, step: int) -> np.ndarray:
    """Return one value a frame: those that came, or else the first one counted on by `step`."""
    values = np.atleast_1d(np.asarray(value, dtype=np.float64))
    return values if len(values) == n else values[0] + step * np.arange(n)
