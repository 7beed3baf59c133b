"""Documents of a tomography run of the simulated sample, its frames inside events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from event_model import compose_run

from bluesky_jit.tomo.geometry import ParallelGeometry
from sim_devices.phantom import experiment
from sim_devices.physics import Detector, DetectorPhysics

GEOMETRY = ParallelGeometry(n_u=64, n_v=48, pixel_mm=1.0)
ANGLES = 90
PHANTOM = experiment("A", seed=3, radius_mm=GEOMETRY.radius_mm, half_height_mm=GEOMETRY.half_height_mm)
TOMO = {"geometry": "parallel", "pixel_mm": 1.0, "angle_key": "theta", "n_angles_per_rotation": ANGLES}


def frames(turns: int = 1, *, photons: float = 3000, seed: int = 0) -> dict[str, np.ndarray]:
    """Return uint16 darks, flats and projections of the resting sample, over full turns."""
    detector = Detector(DetectorPhysics.ideal(photons=photons), GEOMETRY.n_v, GEOMETRY.n_u, seed)
    lines = [PHANTOM.line_integrals(GEOMETRY, 2 * np.pi * n / ANGLES, 0.0) for n in range(ANGLES)]

    def expose(line_integrals: np.ndarray | None, *, beam: bool = True) -> np.ndarray:
        return detector.expose(line_integrals, time_s=0.0, beam=beam, exposure_s=0.02)

    empty = np.zeros((GEOMETRY.n_v, GEOMETRY.n_u), dtype=np.float32)
    return {
        "darks": np.stack([expose(None, beam=False) for _ in range(5)]),
        "flats": np.stack([expose(empty) for _ in range(20)]),
        "primary": np.stack([expose(lines[n % ANGLES]) for n in range(turns * ANGLES)]),
    }


def emit_run(
    emit: Callable[[str, Any], None],
    streams: dict[str, np.ndarray],
    *,
    tomo: dict[str, Any] = TOMO,
    between: Callable[[int], None] = lambda number: None,
    exit_status: str = "success",
    reason: str = "",
    **metadata: Any,
) -> str:
    """Emit a run, one frame an event; `between` is called after each projection with its number."""
    run = compose_run(metadata={"tomo": tomo, "plan_name": "tomo_step_scan", "scan_id": 1, **metadata})
    emit("start", run.start_doc)
    for name, images in streams.items():
        keys = {
            "camera_image": {"source": "PV", "dtype": "array", "shape": list(images.shape[1:])},
            "theta": {"source": "PV", "dtype": "number", "shape": [], "units": "deg"},
        }
        descriptor = run.compose_descriptor(name=name, data_keys=keys)
        emit("descriptor", descriptor.descriptor_doc)
        for number, image in enumerate(images):
            data = {"camera_image": image, "theta": 360.0 * number / ANGLES}
            emit("event", descriptor.compose_event(data=data, timestamps=dict.fromkeys(data, 1.79e9 + number)))
            if name == "primary":
                between(number)
    emit("stop", run.compose_stop(exit_status=exit_status, reason=reason))
    return run.start_doc["uid"]
