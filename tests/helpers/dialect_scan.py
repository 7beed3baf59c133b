"""One simulated scan over half a turn, and the means to make real documents of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from event_model import ComposeDescriptorBundle, ComposeRunBundle, compose_run

from bluesky_jit.tomo.geometry import ParallelGeometry
from sim_devices.phantom import experiment
from sim_devices.physics import Detector, DetectorPhysics

Emit = Callable[[str, Any], None]

GEOMETRY = ParallelGeometry(n_u=64, n_v=6, pixel_mm=1.0)
STEP_DEG = 3.0
N = 61
"""Both ends of half a turn are measured."""
PER_TURN = 120
PHANTOM = experiment("A", seed=3, radius_mm=GEOMETRY.radius_mm, half_height_mm=20.0)
NOW_S = 1_790_000_000.0
EPICS_S = 631_152_000.0
"""1990 in Unix seconds."""
ATTRIBUTES = "/entry/instrument/NDAttributes"


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Hold one scan: uint16 frames, the angles at which they were taken, and when (Unix seconds)."""

    darks: np.ndarray
    flats: np.ndarray
    projections: np.ndarray
    angles_deg: np.ndarray
    times_s: np.ndarray

    def mispaired(self, angles_deg: np.ndarray) -> Scan:
        return replace(self, angles_deg=angles_deg)


def simulated_scan() -> Scan:
    """Return the scan that every dialect tells of; the stage starts slowly, so that angles are uneven in time."""
    detector = Detector(DetectorPhysics.ideal(photons=4000), GEOMETRY.n_v, GEOMETRY.n_u, 0)

    def expose(line_integrals: np.ndarray | None, *, beam: bool = True) -> np.ndarray:
        return detector.expose(line_integrals, time_s=0.0, beam=beam, exposure_s=0.02)

    angles_deg = STEP_DEG * np.arange(N)
    empty = np.zeros((GEOMETRY.n_v, GEOMETRY.n_u), dtype=np.float32)
    return Scan(
        darks=np.stack([expose(None, beam=False) for _ in range(5)]),
        flats=np.stack([expose(empty) for _ in range(20)]),
        projections=np.stack([expose(PHANTOM.line_integrals(GEOMETRY, np.deg2rad(a), 0.0)) for a in angles_deg]),
        angles_deg=angles_deg,
        times_s=NOW_S + 20 + 0.4 * np.sqrt(1 + angles_deg),
    )


class Run:
    """Emit the documents of one run."""

    def __init__(self, emit: Emit, **metadata: Any) -> None:
        self.emit = emit
        self.bundle: ComposeRunBundle = compose_run(time=NOW_S, metadata={"scan_id": 1, **metadata})
        self.uid: str = self.bundle.start_doc["uid"]
        emit("start", self.bundle.start_doc)

    def stream(self, name: str, **data_keys: dict[str, Any]) -> ComposeDescriptorBundle:
        keys = {key: {"source": f"PV:{key}", **data_key} for key, data_key in data_keys.items()}
        descriptor = self.bundle.compose_descriptor(name=name, data_keys=keys)
        self.emit("descriptor", descriptor.descriptor_doc)
        return descriptor

    def event(self, stream: ComposeDescriptorBundle, time_s: float, **data: Any) -> None:
        self.emit("event", self.composed(stream, time_s, **data))

    def composed(self, stream: ComposeDescriptorBundle, time_s: float, **data: Any) -> dict[str, Any]:
        filed = {key for key, data_key in stream.descriptor_doc["data_keys"].items() if "external" in data_key}
        return dict(
            stream.compose_event(
                data=data,
                timestamps=dict.fromkeys(data, time_s),
                time=time_s,
                filled=dict.fromkeys(filed, False),
            )
        )

    def stop(self) -> str:
        self.emit("stop", self.bundle.compose_stop())
        return self.uid


def picture(frames: np.ndarray, *, rows: int | None = None, external: str = "") -> dict[str, Any]:
    shape = [*([] if rows is None else [rows]), *frames.shape[1:]]
    return {"dtype": "array", "shape": shape, **({"external": external} if external else {})}


def scalar(units: str = "", *, external: str = "") -> dict[str, Any]:
    more = {**({"units": units} if units else {}), **({"external": external} if external else {})}
    return {"dtype": "number", "shape": [], **more}
