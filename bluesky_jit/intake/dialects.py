"""Tell what a run's streams and data keys mean: which frames are darks, where the image is, where the angle lives.

Plans name their streams differently; everything that depends on such names is in this file and in `foreign_plans`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bluesky_jit.intake.foreign_plans import foreign_tomo
from bluesky_jit.messages import AngleSource, FrameKind
from bluesky_jit.settings import Settings
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

ANGLES, UNIQUE_IDS = ("angle", "theta"), ("unique_id", "uniqueid")
FRAME_TIMES = ("frame_time", "timestamp", "timestamps", "_time")
"""How the names of data keys end, the surest first."""
COLUMNS = (*ANGLES, *UNIQUE_IDS, *FRAME_TIMES)
NO_CLOCK = ("zebra_time",)
"""Keys that look like time stamps and count from the beginning of a sweep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamKeys:
    """Name the data keys of one stream that matter to us; an empty name means that the stream has none."""

    stream: str
    names: tuple[str, ...]
    """All of the stream's data keys."""
    kind: FrameKind
    image: str
    frame_shape: tuple[int, int]
    frames_per_row: int
    """How many frames one event holds."""
    image_external: str
    """The descriptor's `external`: "STREAM:", another word for resource and datum, or "" for arrays in events."""
    angle: str
    angle_scale: float
    angles_per_row: int
    angle_external: str
    unique_id: str
    frame_time: str

    @property
    def angle_source(self) -> AngleSource:
        return "same stream" if self.angle else "plan arguments"


def is_tomography(start: Mapping[str, Any]) -> bool:
    """Tell whether a run asks to be reconstructed: its start document has a `tomo` block."""
    return isinstance(start.get("tomo"), Mapping)


def tomo_of(start: Mapping[str, Any], settings: Settings) -> dict[str, Any] | None:
    """Return the `tomo` block of a run: its own, or one made of what a known plan writes; None for other runs.

    What a known plan implies gives way to the settings; what a run states by itself does not.
    """
    if is_tomography(start):
        return dict(start["tomo"])
    degrees = ANGLE_SCALES[settings.intake.angle_unit] / ANGLE_SCALES["deg"]
    block = foreign_tomo(start, named=settings.intake.plans, degrees=degrees)
    if block is not None and settings.tomo.angles_per_turn:
        block["n_angles_per_rotation"] = settings.tomo.angles_per_turn
        block.pop("assumed", None)
    return block


def tells_tomography(descriptor: Mapping[str, Any]) -> bool:
    """Tell whether a stream shows that its run is a tomography: pictures under a name that means nothing else."""
    name = descriptor.get("name", "primary")
    return name != "primary" and name in STREAM_KINDS and bool(image_key(descriptor["data_keys"]))


def read_stream(
    descriptor: Mapping[str, Any], tomo: Mapping[str, Any], start: Mapping[str, Any], settings: IntakeSettings
) -> StreamKeys | None:
    """Read a descriptor; return None for a stream that carries no frames we know (a baseline, a monitor)."""
    name = str(descriptor.get("name", "primary"))
    kind = STREAM_KINDS.get(name)
    data_keys = descriptor["data_keys"]
    image = image_key(data_keys, named=str(tomo.get("image_key") or ""))
    if kind is None or not image:
        return None
    shape = tuple(int(n) for n in data_keys[image]["shape"])
    angle = "" if kind != "projection" else _angle_key(data_keys, tomo, start, settings, camera=image)
    return StreamKeys(
        stream=name,
        names=tuple(sorted(data_keys)),
        kind=kind,
        image=image,
        frame_shape=(shape[-2], shape[-1]),
        frames_per_row=math.prod(shape[:-2]),
        image_external=str(data_keys[image].get("external", "")),
        angle=angle,
        angle_scale=_angle_scale(data_keys[angle], settings) if angle else 1.0,
        angles_per_row=math.prod(int(n or 1) for n in data_keys[angle].get("shape", ())) if angle else 1,
        angle_external=str(data_keys[angle].get("external", "")) if angle else "",
        unique_id=_key_ending(data_keys, *UNIQUE_IDS),
        frame_time=_key_ending(data_keys, *FRAME_TIMES),
    )


def read_monitor(
    descriptor: Mapping[str, Any], tomo: Mapping[str, Any], start: Mapping[str, Any], settings: IntakeSettings
) -> tuple[str, float] | None:
    """Return the data key of the angle, and radians in its unit, where a stream monitors a stage; else None."""
    name, data_keys = str(descriptor.get("name", "")), descriptor["data_keys"]
    if name == "baseline" or image_key(data_keys):
        return None
    asked = asked_angle_key(tomo, settings)
    if asked:
        key = asked if asked in data_keys else ""
    elif not name.endswith("_monitor") and not name.startswith("monitor"):
        return None
    else:
        key = _angle_key(data_keys, tomo, start, settings)
        stage = name.removesuffix("_monitor")
        if not key and stage in data_keys and _turns(data_keys[stage]):
            key = stage
    return (key, _angle_scale(data_keys[key], settings)) if key else None


def even_steps_rad(
    tomo: Mapping[str, Any], angles_per_turn: int | None, first: int, count: int, *, sweep: int | None = None
) -> np.ndarray:
    """Return the angles (count,) of projections from number `first` on, for a run that recorded none.

    angles_per_turn: for runs that do not say; sweep: how many projections one go of the stage has, for those that only
    say where it begins and ends. Raises ValueError when the steps cannot be known.
    """
    order = tomo.get("scan_mode") or "sequential"
    if order != "sequential":
        raise ValueError(
            f"the run records no angle, and its scan_mode {order!r} has no even steps to take instead: give the "
            "data key of the angle in tomo.angle_key or the setting intake.angle_key"
        )
    numbers = first + np.arange(count)
    n, arc_deg = tomo.get("n_projections") or sweep, tomo.get("arc_deg")
    if n and n > 1 and arc_deg is not None:
        # Both ends are measured; the next sweep begins again.
        return np.deg2rad(float(tomo.get("start_deg") or 0.0) + numbers % n * (float(arc_deg) / (n - 1)))
    per_turn = tomo.get("n_angles_per_rotation") or angles_per_turn
    if not per_turn:
        raise ValueError(
            "the run records no angle and does not say how many angles make a turn: give tomo.angle_key or "
            "tomo.n_angles_per_rotation in its metadata, or set tomo.angles_per_turn"
        )
    return numbers * (2 * math.pi / float(per_turn))


def image_key(data_keys: Mapping[str, Any], *, named: str = "") -> str:
    """Return the key whose values are pictures: the one that the run names, or else the first that looks like one.

    That is one whose last two dimensions are longer than one, or where no key is so, a single row of pixels.
    """
    shapes = {name: [n for n in key.get("shape", ()) if n is not None] for name, key in data_keys.items()}
    flat = {name: shape[-2:] for name, shape in shapes.items() if len(shape) > 1}
    if named in flat:
        return named
    pictures = (name for name, shape in flat.items() if min(shape) > 1)
    rows = (name for name, (n_v, n_u) in flat.items() if n_v == 1 < n_u and not _is_column(name, data_keys[name]))
    return next(pictures, "") or next(rows, "")


def _is_column(name: str, data_key: Mapping[str, Any]) -> bool:
    """Tell whether a key holds angles, or numbers about frames."""
    return _turns(data_key) or name.lower().endswith(COLUMNS)


def asked_angle_key(tomo: Mapping[str, Any], settings: IntakeSettings) -> str:
    """Return the data key of the angle that the settings, or else the run, ask for."""
    return settings.angle_key or str(tomo.get("angle_key") or "")


def _angle_key(
    data_keys: Mapping[str, Any],
    tomo: Mapping[str, Any],
    start: Mapping[str, Any],
    settings: IntakeSettings,
    *,
    camera: str = "",
) -> str:
    asked = asked_angle_key(tomo, settings)
    if asked:
        return asked if asked in data_keys else ""
    # A sample is moved across the beam, too.
    motors = [str(name) for name in start.get("motors") or () if name in data_keys and not _shifts(data_keys[name])]
    turning = [name for name in motors if _turns(data_keys[name])]
    if turning:
        return turning[0]
    # An attribute of the frame before what another device recorded.
    camera = camera.removesuffix("_image")
    own = {name: key for name, key in data_keys.items() if camera and name.startswith(camera)}
    return _key_ending(own, *ANGLES) or _key_ending(data_keys, *ANGLES) or (motors[0] if len(motors) == 1 else "")


def _turns(data_key: Mapping[str, Any]) -> bool:
    return str(data_key.get("units") or "").lower() in ANGLE_SCALES


def _shifts(data_key: Mapping[str, Any]) -> bool:
    return bool(data_key.get("units")) and not _turns(data_key)


def _angle_scale(data_key: Mapping[str, Any], settings: IntakeSettings) -> float:
    unit = str(data_key.get("units") or settings.angle_unit).lower()
    if unit not in ANGLE_SCALES:
        raise ValueError(f"the angle's unit is {unit!r}: give one of {', '.join(ANGLE_SCALES)} in its data key")
    return ANGLE_SCALES[unit]


def _key_ending(data_keys: Mapping[str, Any], *endings: str) -> str:
    for ending in endings:
        for name in data_keys:
            if name.lower().endswith(ending) and name not in NO_CLOCK:
                return name
    return ""
