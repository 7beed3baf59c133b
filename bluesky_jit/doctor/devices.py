"""The beamline's devices over Channel Access, and what the camera says of its frames and its files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

import numpy as np

from bluesky_jit.doctor.channels import CAMERA, FILES, Channels, Reading
from bluesky_jit.doctor.files import frame_files
from bluesky_jit.doctor.finding import Finding, fine, problem, warning
from bluesky_jit.intake.frames import EPICS_EPOCH_S
from bluesky_jit.settings import Settings
from bluesky_jit.settings_sections import BeamlineSettings

MOST_SKEW_S = 0.1
"""Latencies of that size are shown (docs/benchmarks/live.json); a clock that is off by more makes nonsense of them."""
LATE_S = 5.0
"""From the end of a frame until its time stamp is served, on a slow day."""
RECENT_S = 10.0
DEFAULT_ARRAY_BYTES = 16384
"""EPICS_CA_MAX_ARRAY_BYTES where it is not set."""


def look(settings: Settings, channels: Channels, clock: Callable[[], float] = time.time) -> list[Finding]:
    """Look for the camera, the stage, the shutter and the sample's positioner, then at the camera's files."""
    names = settings.beamline
    found = channels.read()
    return [
        *judge(names, found),
        *array_size(names, found, os.environ),
        *camera_clock(names, found, clock()),
        *frame_files(
            # The first is where a plan will have it write.
            directory=names.file_directory or text_of(found, names.camera + "HDF1:FilePath_RBV"),
            swmr=text_of(found, names.camera + "HDF1:SWMRMode_RBV"),
            camera=names.camera,
            frame_bytes=frame_bytes(names, found),
        ),
    ]


def judge(names: BeamlineSettings, found: Mapping[str, Reading]) -> list[Finding]:
    """Tell which devices answer."""
    others = {"stage": names.stage, "shutter": names.shutter, "sample": names.sample}
    return [*_camera(names, found), *(_other(subject, name, found) for subject, name in others.items())]


def text_of(found: Mapping[str, Reading], name: str) -> str:
    """Return what a PV holds as text; empty when it does not answer."""
    return found[name].text if name in found else ""


def _camera(names: BeamlineSettings, found: Mapping[str, Reading]) -> list[Finding]:
    missing = [names.camera + part for part in (*CAMERA, *FILES) if names.camera + part not in found]
    if len(missing) == len(CAMERA) + len(FILES):
        text = (
            f"{names.camera}* does not answer by Channel Access ({search_list(os.environ)}): start its IOC, correct "
            "beamline.camera, or name its machine in EPICS_CA_ADDR_LIST. Without a beamline: `bluesky-jit sim`"
        )
        return [problem("camera", text)]
    if missing:
        return [
            problem(
                "camera",
                f"{', '.join(missing)}: no answer, though the rest of it does: load areaDetector's NDFileHDF5 plugin "
                "as HDF1:",
            )
        ]
    rows, columns, kind = (found[names.camera + part].text for part in (CAMERA[2], CAMERA[1], CAMERA[3]))
    return [fine("camera", f"{names.camera} answers: frames of {rows}×{columns} {kind}")]


def _other(subject: str, name: str, found: Mapping[str, Reading]) -> Finding:
    if not name:
        return fine(subject, f"none: beamline.{subject} is empty")
    if name not in found:
        return problem(
            subject, f"{name} does not answer by Channel Access: start its IOC, or correct beamline.{subject}"
        )
    return fine(subject, f"{name} is {'at ' if subject == 'stage' else ''}{found[name].text}")


def search_list(environment: Mapping[str, str]) -> str:
    """Say where PVs are looked for."""
    listed = environment.get("EPICS_CA_ADDR_LIST", "")
    everywhere = environment.get("EPICS_CA_AUTO_ADDR_LIST", "YES").upper() != "NO"
    places = [*([listed] if listed else []), *(["this machine's subnets"] if everywhere else [])]
    return f"looked for at {' and '.join(places) or 'no address at all'}"


def frame_bytes(names: BeamlineSettings, found: Mapping[str, Reading]) -> int:
    """Return a frame's size in bytes; 0 when the camera does not say."""
    try:
        rows, columns = (int(found[names.camera + part].value) for part in (CAMERA[2], CAMERA[1]))
        return rows * columns * np.dtype(found[names.camera + CAMERA[3]].text.lower()).itemsize
    except (KeyError, TypeError, ValueError):
        return 0


def array_size(names: BeamlineSettings, found: Mapping[str, Reading], environment: Mapping[str, str]) -> list[Finding]:
    """Tell whether a frame fits through Channel Access, for whoever looks at it there."""
    size = frame_bytes(names, found)
    if not size:
        return []
    limit = environment.get("EPICS_CA_MAX_ARRAY_BYTES", str(DEFAULT_ARRAY_BYTES))
    automatic = environment.get("EPICS_CA_AUTO_ARRAY_BYTES", "YES").upper() != "NO"
    if limit.isdecimal() and int(limit) >= size:
        return [fine("array size", f"a frame of {size:,} bytes fits into EPICS_CA_MAX_ARRAY_BYTES={limit}")]
    if automatic:
        return [
            warning(
                "array size",
                f"EPICS_CA_MAX_ARRAY_BYTES is {limit} and a frame has {size:,} bytes: this client takes it all the "
                f"same, IOCs and viewers with an older EPICS do not: export EPICS_CA_MAX_ARRAY_BYTES={2 * size}",
            )
        ]
    return [
        warning(
            "array size",
            f"EPICS_CA_MAX_ARRAY_BYTES is {limit} and a frame has {size:,} bytes: no frame comes through Channel "
            f"Access: export EPICS_CA_MAX_ARRAY_BYTES={2 * size} here and at the IOC",
        )
    ]


def camera_clock(names: BeamlineSettings, found: Mapping[str, Reading], now_s: float) -> list[Finding]:
    """Compare the camera's time stamps with its IOC's clock and with this machine's."""
    reading = found.get(names.camera + "HDF1:TimeStamp_RBV")
    if reading is None:
        return []
    subject, remedy = "clock", "synchronise the clocks (`chronyc tracking` on each machine), or latencies are wrong"
    stamp_s = float(reading.value)
    if not stamp_s:
        return [
            fine(subject, "the camera has taken no frame yet to compare clocks by: `RE(count([camera]))`, then again")
        ]
    # areaDetector counts from 1990 on, others from 1970 on.
    stamp_s = min(stamp_s, stamp_s + EPICS_EPOCH_S, key=lambda time_s: abs(time_s - reading.time_s))
    if max(stamp_s, reading.time_s) > now_s + MOST_SKEW_S:
        who, ahead_s = (
            ("the camera", stamp_s - now_s) if stamp_s >= reading.time_s else ("its IOC", reading.time_s - now_s)
        )
        return [warning(subject, f"{who} is {ahead_s:.1f} s ahead of this machine: {remedy}")]
    behind_s = reading.time_s - stamp_s
    if not -MOST_SKEW_S <= behind_s <= LATE_S:
        way = "behind" if behind_s > 0 else "ahead of"
        return [warning(subject, f"the camera is {abs(behind_s):.1f} s {way} its own IOC: {remedy}")]
    age_s = now_s - stamp_s
    if age_s <= RECENT_S:
        return [fine(subject, f"the camera's newest frame is {age_s:.2f} s old by its own clock and this machine's")]
    return [
        fine(
            subject,
            f"the camera's clock fits its IOC's, and neither is ahead; its last frame is {_duration(age_s)} old, so "
            "that being behind shows only while it runs",
        )
    ]


def _duration(seconds: float) -> str:
    for size, name in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"
