"""A run of the simulated sample whose documents are emitted piece by piece, so that several can be interleaved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from event_model import compose_run
from simulated_run import ANGLES, TOMO


class PlayedRun:
    """Emit a run's documents when the test says so, one frame an event."""

    def __init__(self, emit: Callable[[str, Any], None], *, tomo: dict[str, Any] = TOMO, **metadata: Any) -> None:
        self._emit = emit
        self._run = compose_run(metadata={"tomo": tomo, "plan_name": "tomo_step_scan", "scan_id": 1, **metadata})
        self._descriptors: dict[str, Any] = {}
        self._numbers: dict[str, int] = {}
        emit("start", self._run.start_doc)

    @property
    def uid(self) -> str:
        return self._run.start_doc["uid"]

    def frames(self, name: str, images: np.ndarray) -> None:
        """Emit frames (n, n_v, n_u) of a stream, which go on from those before."""
        if name not in self._descriptors:
            keys = {
                "camera_image": {"source": "PV", "dtype": "array", "shape": list(images.shape[1:])},
                "theta": {"source": "PV", "dtype": "number", "shape": [], "units": "deg"},
            }
            self._descriptors[name] = self._run.compose_descriptor(name=name, data_keys=keys)
            self._emit("descriptor", self._descriptors[name].descriptor_doc)
        for image in images:
            number = self._numbers.get(name, 0)
            self._numbers[name] = number + 1
            data = {"camera_image": image, "theta": 360.0 * number / ANGLES}
            event = self._descriptors[name].compose_event(data=data, timestamps=dict.fromkeys(data, 1.79e9 + number))
            self._emit("event", event)

    def stop(self, exit_status: str = "success") -> None:
        self._emit("stop", self._run.compose_stop(exit_status=exit_status))
