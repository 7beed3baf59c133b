"""Compose the documents of a linked run: what was reconstructed from one raw run, one record a turn."""

from __future__ import annotations

import hashlib
import json
import math
from importlib.metadata import version
from typing import Any, Literal, cast

import numpy as np
from event_model import compose_run

from bluesky_jit.archive import address
from bluesky_jit.messages import RunOpened, RunStop, SessionStatus, Update
from bluesky_jit.publish.run_folder import Document

LEARNING = "learning"
LEARNING_PERIOD_S = 1.0
PAIRS_KEPT = 4
"""Updates whose denoised image may still come."""


class LinkedRun:
    """Choose what of a run is recorded and compose the documents of it.

    A stream a slice holds raw and denoised of the same update in one event: the last of every turn, and of the run.
    A stream `learning` holds the scalars, at most one event a second.
    """

    def __init__(self, opened: RunOpened, *, time_s: float, continues: str = "") -> None:
        """Begin; continues: uid of the linked run that a session which died has left of the same raw run."""
        metadata = _metadata(opened)
        metadata |= {"caught_up": True} if opened.start.caught_up else {}
        metadata |= {"continues": continues} if continues else {}
        self._bundle = compose_run(time=time_s, metadata=metadata, validate=False)
        self._streams: dict[tuple[str, tuple[int, ...]], Any] = {}
        self._recent: dict[str, dict[int, dict[str, Update]]] = {}
        self._turn: dict[str, int] = {}
        self._recorded: dict[str, int] = {}
        self._status: SessionStatus | None = None
        self._status_recorded_s = -math.inf

    @property
    def uid(self) -> str:
        return self._bundle.start_doc["uid"]

    def start(self) -> list[Document]:
        """Return the start document."""
        return [("start", dict(self._bundle.start_doc))]

    def update(self, update: Update) -> list[Document]:
        """Take an update; return the documents of the turn that it ends, if it does."""
        if update.kind not in ("raw", "denoised"):
            return []
        name = update.slice_name
        documents = []
        if update.turn > self._turn.setdefault(name, update.turn):
            documents = self._record_latest(name)
            self._turn[name] = update.turn
        recent = self._recent.setdefault(name, {})
        recent.setdefault(update.number, {})[update.kind] = update
        for number in sorted(recent)[:-PAIRS_KEPT]:
            del recent[number]
        return documents

    def status(self, status: SessionStatus) -> list[Document]:
        """Take a status; return an event of the learning stream when one is due."""
        self._status = status
        if status.time_s - self._status_recorded_s < LEARNING_PERIOD_S:
            return []
        return self._record_status(status)

    def stop(self, stop: RunStop) -> list[Document]:
        """Return what has not been recorded yet and the stop document."""
        documents = [document for name in self._recent for document in self._record_latest(name)]
        if self._status is not None and self._status.time_s > self._status_recorded_s:
            documents += self._record_status(self._status)
        status = cast(Literal["success", "abort", "fail"], stop.exit_status)
        end = self._bundle.compose_stop(exit_status=status, reason=stop.reason, time=stop.time_s, validate=False)
        return [*documents, ("stop", dict(end))]

    def _record_latest(self, name: str) -> list[Document]:
        """Record the newest update of a slice, with its denoised image if there are any of late."""
        complete = [n for n, pair in self._recent[name].items() if {"raw", "denoised"} <= pair.keys()]
        raw_only = [n for n, pair in self._recent[name].items() if "raw" in pair]
        number = max(complete or raw_only, default=-1)
        if number <= self._recorded.get(name, -1):
            return []
        self._recorded[name] = number
        pair = self._recent[name][number]
        data = _record(pair["raw"], pair.get("denoised"))
        return self._event(name, data, pair["raw"].made_time_s)

    def _record_status(self, status: SessionStatus) -> list[Document]:
        self._status_recorded_s = status.time_s
        return self._event(LEARNING, _scalars(status), status.time_s)

    def _event(self, name: str, data: dict[str, Any], time_s: float) -> list[Document]:
        shape = data["raw"].shape if "raw" in data else ()
        documents: list[Document] = []
        if (name, shape) not in self._streams:
            # A slice that changes its shape in mid-run goes on in a stream of its own.
            earlier = sum(stream == name for stream, _ in self._streams)
            descriptor = self._bundle.compose_descriptor(
                name=f"{name}_{earlier + 1}" if earlier else name,
                data_keys={key: _data_key(value) for key, value in data.items()},
                time=time_s,
                validate=False,
            )
            self._streams[name, shape] = descriptor
            documents.append(("descriptor", dict(descriptor.descriptor_doc)))
        stamps = dict.fromkeys(data, time_s)
        event = self._streams[name, shape].compose_event(data=data, timestamps=stamps, time=time_s, validate=False)
        return [*documents, ("event", dict(event))]


def _metadata(opened: RunOpened) -> dict[str, Any]:
    settings = {name: dict(section) for name, section in opened.settings.items()}
    # A key is nobody's provenance.
    tiled = settings.get("tiled", {})
    tiled.pop("api_key", None)
    if "uri" in tiled:
        tiled["uri"] = address(tiled["uri"])
    canonical = json.dumps(settings, sort_keys=True, default=str)
    return {
        "raw_run": opened.start.run_uid,
        "plan_name": "jit",
        "raw_plan_name": opened.start.plan_name,
        "scan_id": opened.start.scan_id,
        "geometry": opened.geometry.to_metadata(),
        "corrections": opened.corrections,
        "settings": json.loads(canonical),
        "settings_digest": hashlib.sha256(canonical.encode()).hexdigest()[:16],
        "versions": {"bluesky_jit": version("bluesky-jit")},
    }


def _record(raw: Update, denoised: Update | None) -> dict[str, Any]:
    image = _plane(raw.image)
    made_by = denoised or raw
    grid = {
        f"{vector}_{axis}_mm": value
        for vector in ("origin", "x_step", "y_step", "z_step")
        for axis, value in zip("xyz", getattr(raw.grid, vector), strict=True)
    }
    return {
        "raw": image,
        "denoised": np.full_like(image, np.nan) if denoised is None else _plane(denoised.image),
        "update": raw.number,
        "ready": denoised is not None,
        "turn": raw.turn,
        "frame_time": raw.frame_time_s,
        "made_time": raw.made_time_s,
        "latency_ms": float(made_by.latency_ms),
        "angles_count": raw.angles.count,
        "angles_first_id": raw.angles.first_id,
        "angles_last_id": raw.angles.last_id,
        "angles_arc_rad": float(raw.angles.arc_rad),
        "angles_source": raw.angles.source,
        "flats": raw.flats,
        "axis_offset_mm": float(raw.axis_offset_mm),
        "preset": made_by.preset,
        "weights_step": made_by.weights_step,
        "accuracy": float(made_by.accuracy),
        **grid,
    }


def _scalars(status: SessionStatus) -> dict[str, Any]:
    learning = status.learning
    return {
        "step": learning.step,
        "loss": float(learning.loss),
        "accuracy": float(learning.accuracy),
        "held_out": float(learning.held_out),
        "unseen": float(learning.unseen),
        "whole_slice": float(learning.whole_slice),
        "residual_variance": float(learning.residual_variance),
        "residual_correlation": float(learning.residual_correlation),
        "residual_verdict": learning.residual_verdict,
        "drift": float(learning.drift),
        "jumps": learning.jumps,
        "refused": learning.refused,
        "ready": learning.ready,
        "reason": learning.reason,
        "preset": learning.preset,
        "chosen": learning.chosen,
        "pairs": learning.pairs,
        "picks_per_pair": float(learning.picks_per_pair),
        "pairs_per_s": float(learning.pairs_per_s),
        "samples_per_s": float(learning.samples_per_s),
        "steps_per_s": float(learning.steps_per_s),
        "update": status.update,
        "updates_per_s": float(status.updates_per_s),
        "latency_ms": float(status.latency_ms),
        "recon_time_ms": float(status.recon_time_ms),
        "clipped_fraction": float(status.clipped_fraction),
        "zingers_per_frame": float(status.zingers_per_frame),
        "beam_level": float(status.beam_level),
        "frames_received": status.frames_received,
        "frames_lost": status.frames_lost,
        "turns": float(status.turns),
        "axis_offset_mm": float(status.axis_offset_mm),
        "axis_estimate_mm": float(status.axis_estimate_mm),
        "axis_column": float(status.axis_column),
        "axis_confidence": float(status.axis_confidence),
    }


def _plane(image: np.ndarray) -> np.ndarray:
    """Return (ny, nx) of a plain slice, (nz, ny, nx) of a slab, in float32."""
    image = np.asarray(image, dtype=np.float32)
    return image[0] if image.ndim == 3 and image.shape[0] == 1 else image


def _data_key(value: Any) -> dict[str, Any]:
    if isinstance(value, np.ndarray):
        return {
            "dtype": "array",
            "dtype_numpy": value.dtype.str,
            "shape": list(value.shape),
            "source": "bluesky_jit",
            "units": "1/mm",
        }
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"dtype": kinds[type(value)], "shape": [], "source": "bluesky_jit"}
