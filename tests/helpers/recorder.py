"""A receiver that keeps what it is given, and runs composed with event_model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from event_model import compose_run

from bluesky_jit.messages import RunMessage
from bluesky_jit.settings import Settings

TOMO = {"geometry": "parallel", "pixel_mm": 0.1, "angle_key": "theta", "n_angles_per_rotation": 8}


@dataclass
class Recorder:
    """Receive messages and keep them."""

    settings: Settings = field(default_factory=Settings)
    messages: list[RunMessage] = field(default_factory=list)

    def submit(self, message: RunMessage) -> None:
        self.messages.append(message)

    def of(self, kind: type) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind)]


Emit = Callable[[str, Any], None]


def inline_run(emit: Emit, streams: dict[str, np.ndarray], *, tomo: dict | None = None, step_deg: float = 45.0) -> str:
    """Emit a run whose frames come inside events, one an event, with the motor `theta` in degrees."""
    run = compose_run(metadata={"tomo": TOMO if tomo is None else tomo, "plan_name": "tomo_step_scan", "scan_id": 7})
    emit("start", run.start_doc)
    for name, frames in streams.items():
        descriptor = run.compose_descriptor(
            name=name,
            data_keys={
                "camera_image": {"source": "PV:image", "dtype": "array", "shape": list(frames.shape[1:])},
                "theta": {"source": "PV:theta", "dtype": "number", "shape": [], "units": "deg"},
            },
        )
        emit("descriptor", descriptor.descriptor_doc)
        for number, frame in enumerate(frames):
            event = descriptor.compose_event(
                data={"camera_image": frame, "theta": number * step_deg},
                timestamps={"camera_image": 1000.0 + number, "theta": 1000.0 + number},
            )
            emit("event", event)
    emit("stop", run.compose_stop())
    return run.start_doc["uid"]


def filed_run(
    emit: Emit, path: Path, rows: dict[str, list[tuple[int, int]]], *, columns: dict[str, str], swmr: bool = True
) -> str:
    """Emit a run of stream_resource and stream_datum (columns: key -> dataset; rows: key -> (start, stop))."""
    run = compose_run(metadata={"tomo": {**TOMO, "angle_key": "camera_angle"}, "plan_name": "tomo_scan", "scan_id": 8})
    emit("start", run.start_doc)
    data_keys = {
        key: {
            "source": "PV",
            "dtype": "array" if key == "camera" else "number",
            "shape": [4, 6] if key == "camera" else [],
            "external": "STREAM:",
            "units": "deg" if key.endswith("angle") else "",
        }
        for key in columns
    }
    descriptor = run.compose_descriptor(name="primary", data_keys=data_keys)
    emit("descriptor", descriptor.descriptor_doc)
    for key, dataset in columns.items():
        bundle = run.compose_stream_resource(
            mimetype="application/x-hdf5",
            uri=f"file://localhost{path}",
            data_key=key,
            parameters={"dataset": dataset, "swmr": swmr},
        )
        emit("stream_resource", bundle.stream_resource_doc)
        for start, stop in rows[key]:
            datum = bundle.compose_stream_datum(
                {"start": start, "stop": stop}, {"start": start + 1, "stop": stop + 1}, descriptor.descriptor_doc
            )
            emit("stream_datum", datum)
    emit("stop", run.compose_stop())
    return run.start_doc["uid"]
