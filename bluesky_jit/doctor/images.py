"""The camera's image over pvAccess: whether a monitor brings a frame, and what the frame carries."""

from __future__ import annotations

import queue
from typing import Any

from p4p import Value
from p4p.client.thread import Context, Disconnected

from bluesky_jit.doctor.finding import Finding, fine, problem, warning
from bluesky_jit.settings import Settings

SUBJECT = "pvAccess"
FIRST_FRAME_S = 4.0
OFF = "off"


def image_name(settings: Settings) -> str:
    """Return the PV that frames are taken from by pvAccess; empty: none."""
    if settings.intake.pva == OFF:
        return ""
    own = settings.beamline.pva
    return settings.intake.pva or (settings.beamline.camera + own if own else "")


def look(settings: Settings, *, timeout_s: float = FIRST_FRAME_S) -> list[Finding]:
    """Wait for the first frame of a monitor."""
    name = image_name(settings)
    if not name:
        return [fine(SUBJECT, "not used: frames come from files (intake.pva, beamline.pva)")]
    came: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with Context("pva", nt=False) as context:
        subscription = context.monitor(name, came.put, notify_disconnect=True)
        try:
            value = came.get(timeout=timeout_s)
            # The first word is that it is not connected yet.
            while isinstance(value, Disconnected):
                value = came.get(timeout=timeout_s)
        except queue.Empty:
            return [_nothing(settings, name)]
        finally:
            subscription.close()
    return [_judge(settings, name, value)]


def _nothing(settings: Settings, name: str) -> Finding:
    text = (
        f"{name}: no frame within {FIRST_FRAME_S:g} s: enable the camera's NDPluginPva (`caput "
        f"{settings.beamline.camera}Pva1:EnableCallbacks 1`), or name its machine in EPICS_PVA_ADDR_LIST"
    )
    if settings.intake.pva:
        return problem(SUBJECT, f'{text}; or intake.pva = "off"')
    return warning(SUBJECT, f'{text}. Frames come from files until then; without one, beamline.pva = ""')


def _judge(settings: Settings, name: str, value: Any) -> Finding:
    if not isinstance(value, Value) or not {"dimension", "uniqueId", "attribute"} <= set(value):
        what = value.getID() if isinstance(value, Value) else str(value)
        return problem(SUBJECT, f"{name} is no image (NTNDArray) but {what}: correct intake.pva or beamline.pva")
    shape = "×".join(str(int(dimension["size"])) for dimension in reversed(value["dimension"]))
    codec = str(value["codec.name"])
    if codec:
        return warning(
            SUBJECT, f"{name} brings frames packed with {codec}: let the camera's NDPluginCodec send them as they are"
        )
    attributes = [str(attribute["name"]) for attribute in value["attribute"]]
    wanted = settings.intake.pva_angle
    if wanted and wanted not in attributes:
        listed = ", ".join(attributes) or "none"
        return problem(SUBJECT, f"{name} has no attribute {wanted!r} (intake.pva_angle); there are: {listed}")
    return fine(
        SUBJECT, f"{name} brings frames of {shape} with {', '.join(attributes) or 'no attributes, so without angles'}"
    )
