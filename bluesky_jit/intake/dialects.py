"""Tell what a run's streams and data keys mean: which frames are darks, where the image is, where the angle lives.

Plans name their streams differently; everything that depends on such names is in this file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bluesky_jit.messages import AngleSource, FrameKind
from bluesky_jit.settings_sections import IntakeSettings

STREAM_KINDS: dict[str, FrameKind] = {
    "dark": "dark",
    "darks": "dark",
    "flat": "flat",
    "flats": "flat",
    "primary": "projection",
    "projections": "projection",
    "tomo": "projection",
}

ANGLE_SCALES = {
    "deg": math.pi / 180,
    "degree": math.pi / 180,
    "degrees": math.pi / 180,
    "rad": 1.0,
    "radian": 1.0,
    "radians": 1.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamKeys:
    """Name the data keys of one stream that matter to us; an empty name means that the stream has none."""

    kind: FrameKind
    image: str
    frame_shape: tuple[int, int]
    image_external: str
    """The descriptor's `external`: "STREAM:", another word for resource and datum, or "" for arrays in events."""
    angle: str
    angle_scale: float
    angle_external: str
    unique_id: str
    frame_time: str

    @property
    def angle_source(self) -> AngleSource:
        return "same stream" if self.angle else "plan arguments"


def is_tomography(start: Mapping[str, Any]) -> bool:
    """Tell whether a run asks to be reconstructed: its start document has a `tomo` block."""
    return isinstance(start.get("tomo"), Mapping)


def read_stream(
    descriptor: Mapping[str, Any], tomo: Mapping[str, Any], start: Mapping[str, Any], settings: IntakeSettings
) -> StreamKeys | None:
    """Read a descriptor; return None for a stream that carries no frames we know (a baseline, a monitor)."""
    kind = STREAM_KINDS.get(descriptor.get("name", "primary"))
    data_keys = descriptor["data_keys"]
    image = _image_key(data_keys)
    if kind is None or not image:
        return None
    shape = tuple(int(n) for n in data_keys[image]["shape"])[-2:]
    angle = "" if kind != "projection" else _angle_key(data_keys, tomo, start, settings)
    return StreamKeys(
        kind=kind,
        image=image,
        frame_shape=(shape[0], shape[1]),
        image_external=str(data_keys[image].get("external", "")),
        angle=angle,
        angle_scale=_angle_scale(data_keys[angle], settings) if angle else 1.0,
        angle_external=str(data_keys[angle].get("external", "")) if angle else "",
        unique_id=_key_ending(data_keys, "unique_id", "uniqueid"),
        frame_time=_key_ending(data_keys, "frame_time", "timestamp", "_time"),
    )


def even_steps_rad(tomo: Mapping[str, Any], angles_per_turn: int | None, first: int, count: int) -> np.ndarray:
    """Return the angles (count,) of projections from number `first` on, for a run that recorded none.

    angles_per_turn: for runs that do not say. Raises ValueError when the steps cannot be known.
    """
    order = tomo.get("scan_mode") or "sequential"
    if order != "sequential":
        raise ValueError(
            f"the run records no angle, and its scan_mode {order!r} has no even steps to take instead: give the "
            "data key of the angle in tomo.angle_key or the setting intake.angle_key"
        )
    per_turn = tomo.get("n_angles_per_rotation") or angles_per_turn
    if not per_turn:
        raise ValueError(
            "the run records no angle and does not say how many angles make a turn: give tomo.angle_key or "
            "tomo.n_angles_per_rotation in its metadata, or set tomo.angles_per_turn"
        )
    return (first + np.arange(count)) * (2 * math.pi / float(per_turn))


def _image_key(data_keys: Mapping[str, Any]) -> str:
    """Return the first key whose values are pictures: two or more dimensions, each longer than one."""
    for name, key in data_keys.items():
        shape = [n for n in key.get("shape", ()) if n is not None]
        if len(shape) >= 2 and min(shape[-2:]) > 1:
            return name
    return ""


def asked_angle_key(tomo: Mapping[str, Any], settings: IntakeSettings) -> str:
    """Return the data key of the angle that the settings, or else the run, ask for."""
    return settings.angle_key or str(tomo.get("angle_key") or "")


def _angle_key(
    data_keys: Mapping[str, Any], tomo: Mapping[str, Any], start: Mapping[str, Any], settings: IntakeSettings
) -> str:
    asked = asked_angle_key(tomo, settings)
    if asked:
        return asked if asked in data_keys else ""
    for motor in start.get("motors") or ():
        if motor in data_keys:
            return str(motor)
    return _key_ending(data_keys, "angle", "theta")


def _angle_scale(data_key: Mapping[str, Any], settings: IntakeSettings) -> float:
    unit = str(data_key.get("units") or settings.angle_unit).lower()
    if unit not in ANGLE_SCALES:
        raise ValueError(f"the angle's unit is {unit!r}: give one of {', '.join(ANGLE_SCALES)} in its data key")
    return ANGLE_SCALES[unit]


def _key_ending(data_keys: Mapping[str, Any], *endings: str) -> str:
    for ending in endings:
        for name in data_keys:
            if name.lower().endswith(ending):
                return name
    return ""
