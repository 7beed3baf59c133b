"""Play a scan into a session of this process: a picture of its slice raw and denoised, and figures."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bluesky_jit.cli.replay_flow import Flow
from bluesky_jit.cli.replay_learning import learn_on
from bluesky_jit.intake.callback import JITCallback
from bluesky_jit.intake.replay import replay
from bluesky_jit.intake.setup import geometry_of
from bluesky_jit.intake.stored_scan import StoredScan
from bluesky_jit.messages import SessionStatus, Update
from bluesky_jit.offline.picture import Compared
from bluesky_jit.session.wiring import Session
from bluesky_jit.settings import Settings
from bluesky_jit.tomo.geometry import Geometry

if TYPE_CHECKING:
    from bluesky_jit.cli.replay import Bars, LeftOut, Play
    from bluesky_jit.intake.recorded_frames import RecordedScan

logger = logging.getLogger(__name__)

PICTURE, FIGURES = "slice.png", "figures.json"
SHOWN = "XY"
ENDED = ("idle", "failed")
LAST_SLICES_S = 120.0
"""How long the last slices may take, on the slowest machine."""


def require_new_results(folder: Path) -> None:
    """Raise FileExistsError where something else would be written over."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"--output {folder} is a file: give a folder")
    for name in (PICTURE, FIGURES):
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name} exists already: give another --output, or remove it first")


def play_in_session(
    scan: StoredScan | RecordedScan,
    settings: Settings,
    tomo: dict[str, Any],
    play: Play,
    folder: Path,
    bars: Bars,
    left_out: LeftOut,
) -> None:
    """Play a scan, learn on for a while, and write the picture and the figures."""
    from bluesky_jit.cli.replay import Counting

    unit = "mm"
    if tomo["pixel_mm"] is None and tomo["geometry"] == "parallel":
        if settings.tomo.delta_beta:
            raise ValueError(f"phase retrieval needs the pixels' size, which {scan.name} lacks: give geometry.pixel_mm")
        # The slices are as good, and only their scale is not known.
        tomo, unit = {**tomo, "pixel_mm": 1.0}, "pixel"
        logger.warning(
            "%s does not tell the pixels' size, nor does geometry.pixel_mm: lengths are in pixels", scan.name
        )
    geometry = geometry_of(tomo, settings.geometry, scan.frame_shape)
    recorded = not isinstance(scan, StoredScan)
    with results_folder(folder), Session(_own_settings(settings, recorded=recorded)) as session:
        flow = Flow(
            JITCallback(session),
            lambda uid: _taken(session, uid),
            most=settings.intake.queue_frames // 2,
            says=lambda: session.status.message,
        )
        counting = Counting(flow, scan, play.turns, bars, left_out)
        began = time.monotonic()
        lasted = math.nan

        def emit(name: str, document: dict[str, Any]) -> None:
            nonlocal lasted
            if name == "stop" and document["exit_status"] == "success":
                flow.wait()
                lasted = time.monotonic() - began
                if settings.learn.enabled and play.learn_s:
                    learn_on(session, play.learn_s, bars)
            counting(name, document)

        # What comes of a recorded run belongs to it.
        uid = scan.uid if not isinstance(scan, StoredScan) else None
        uid = replay(scan, emit, tomo=tomo, rate=play.rate, turns=play.turns, uid=uid, told=counting.leave_out)
        if not session.wait_for(lambda status: status.run_uid == uid and status.state in ENDED, LAST_SLICES_S):
            logger.warning("the last slices were not made within %g s", LAST_SLICES_S)
        status = session.status
        raw, denoised = session.latest(SHOWN, "raw"), session.latest(SHOWN, "denoised")
        bars.stop()
        denoised = _of_the_same(raw, denoised, status)
        figures = _figures(scan, geometry, status, raw, denoised, unit, left_out.sentences, lasted)
        if raw is not None:
            _draw(raw, denoised, status, geometry, scan.called, unit, folder / PICTURE)
            figures["picture"] = PICTURE
        (folder / FIGURES).write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n")
    _tell(figures, folder, Console())
    if raw is None:
        raise RuntimeError(f"no slice came out: {figures['message'] or 'the session does not say why'}")


@contextmanager
def results_folder(folder: Path) -> Iterator[None]:
    """Make a folder at once, for later would be too late to learn that it cannot be; leave none that stays empty."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for place in made:
            if not any(place.iterdir()):
                place.rmdir()


def _own_settings(settings: Settings, *, recorded: bool) -> Settings:
    """Return the settings of a session that nobody watches: no PVs, and records only beside those of the run itself."""
    changes: dict[str, dict[str, Any]] = {"epics": {"enabled": False}, "intake": {"angle_key": "", "pva": "off"}}
    if not recorded:
        changes["tiled"] = {"uri": ""}
    return settings.changed(changes)


def _taken(session: Session, uid: str) -> int:
    status = session.status
    if status.state == "failed":
        raise RuntimeError(f"the session has failed: {status.message}")
    return status.frames_received + status.frames_lost if status.run_uid == uid else 0


def _of_the_same(raw: Update | None, denoised: Update | None, status: SessionStatus) -> Update | None:
    """Return the denoised slice if it is of the raw one's moment, and was good enough to the end."""
    if raw is None or denoised is None or denoised.number != raw.number or not status.learning.ready:
        return None
    return denoised


def _figures(
    scan: StoredScan | RecordedScan,
    geometry: Geometry,
    status: SessionStatus,
    raw: Update | None,
    denoised: Update | None,
    unit: str,
    left_out: list[str],
    lasted_s: float,
) -> dict[str, Any]:
    """Return what is known of the replay, as JSON keeps it."""
    learning = asdict(status.learning)
    offset = raw.axis_offset_mm if raw is not None else status.axis_offset_mm
    found: dict[str, Any] = {
        "source": scan.name,
        "layout": scan.layout,
        "run_uid": status.run_uid,
        "unit": unit,
        "geometry": geometry.to_metadata(),
        "frames": {
            "projections": status.projections,
            "darks": status.darks,
            "flats": status.flats,
            "lost": status.frames_lost,
            "left_out": left_out,
            "taken_in_s": lasted_s,
        },
        "axis": {
            "column": _axis_column(geometry, offset),
            "offset": offset,
            "estimated_column": status.axis_column,
            "confidence": status.axis_confidence,
            "reason": status.axis_reason,
        },
        "angles_from": scan.angle_source,
        "denoised": denoised is not None,
        "learning": {
            name: learning[name]
            for name in (
                *("ready", "reason", "preset", "step", "pairs"),
                *("accuracy", "held_out", "unseen", "whole_slice", "residual_verdict"),
            )
        },
        "message": _not_used(left_out) or status.message,
    }
    return _without_nan(found)


def _not_used(left_out: list[str]) -> str:
    """Say how many frames the file has and the slices have not; the session can only say that they never came."""
    if not left_out:
        return ""
    frames = "a frame" if len(left_out) == 1 else f"{len(left_out)} frames"
    return f"{frames} could not be used: {left_out[0]}{' …' if len(left_out) > 1 else ''}"


def _axis_column(geometry: Geometry, offset_mm: float) -> float:
    """Return the detector column that the axis in use projects to."""
    return geometry.u_centre + offset_mm / geometry.voxel_mm


def _without_nan(value: Any) -> Any:
    """Return a tree of values with None for what is no number."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _draw(
    raw: Update,
    denoised: Update | None,
    status: SessionStatus,
    geometry: Geometry,
    name: str,
    unit: str,
    path: Path,
) -> None:
    learning = status.learning
    titles = (f"raw, {raw.angles.count} projections", "not denoised")
    if denoised is not None:
        titles = (titles[0], f"denoised by {denoised.preset} after {denoised.weights_step} steps")
    compared = Compared(
        raw=raw.image[0],
        denoised=None if denoised is None else denoised.image[0],
        reason=learning.reason,
        grid=raw.grid,
        radius=geometry.radius_mm,
        titles=titles,
        unit=unit,
    )
    compared.draw(path, f"{name}, axis at column {_axis_column(geometry, raw.axis_offset_mm):.2f}")


def _tell(figures: dict[str, Any], folder: Path, console: Console) -> None:
    axis, frames, learning = figures["axis"], figures["frames"], figures["learning"]
    if axis["estimated_column"] is not None:
        console.print(
            f"rotation axis at column {axis['column']:.2f}, estimated at {axis['estimated_column']:.2f} (confidence "
            f"{axis['confidence']:.2f}){'; ' + axis['reason'] if axis['reason'] else ''}",
            soft_wrap=True,
        )
    console.print(
        f"{frames['projections']} projections, {frames['flats']} flats, {frames['darks']} darks; {frames['lost']} lost",
        soft_wrap=True,
    )
    console.print(
        f"{'denoised' if figures['denoised'] else 'not denoised'} ({learning['preset']}, {learning['step']} steps): "
        f"{learning['reason']}",
        soft_wrap=True,
    )
    if "picture" in figures:
        console.print(f"look at {folder / PICTURE}; figures are in {folder / FIGURES}", soft_wrap=True)
    if figures["message"]:
        console.print(figures["message"], style="yellow", soft_wrap=True)
