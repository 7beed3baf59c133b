"""Play a scan into a session of this process: a picture of its slice raw and denoised, and figures."""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bluesky_jit.cli.replay_flow import Flow
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
LOOK_S = 0.5
"""Between two looks at how learning goes."""
EVALUATIONS = 2
"""Accuracies whose mean tells whether the network still improves: single ones scatter."""


def require_new_results(folder: Path) -> None:
    """Raise FileExistsError where an earlier replay's results would be written over."""
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
    from bluesky_jit.cli.replay import counted

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
    folder.mkdir(parents=True, exist_ok=True)
    recorded = not isinstance(scan, StoredScan)
    with Session(_own_settings(settings, recorded=recorded)) as session:
        flow = Flow(JITCallback(session), lambda uid: _taken(session, uid), most=settings.intake.queue_frames // 2)
        counting = counted(flow, scan, play.turns, bars)
        began = time.monotonic()
        lasted = math.nan

        def emit(name: str, document: dict[str, Any]) -> None:
            nonlocal lasted
            if name == "stop" and document["exit_status"] == "success":
                flow.wait()
                lasted = time.monotonic() - began
                if settings.learn.enabled and play.learn_s:
                    _learn_on(session, play.learn_s, bars)
            counting(name, document)

        # What comes of a recorded run belongs to it.
        uid = scan.uid if not isinstance(scan, StoredScan) else None
        uid = replay(scan, emit, tomo=tomo, rate=play.rate, turns=play.turns, uid=uid, told=left_out)
        if not session.wait_for(lambda status: status.run_uid == uid and status.state in ENDED, LAST_SLICES_S):
            logger.warning("the last slices were not made within %g s", LAST_SLICES_S)
        status = session.status
        raw, denoised = session.latest(SHOWN, "raw"), session.latest(SHOWN, "denoised")
    bars.stop()
    denoised = _of_the_same(raw, denoised, status)
    figures = _figures(scan, geometry, status, raw, denoised, unit, left_out.sentences, lasted)
    if raw is not None:
        _draw(raw, denoised, status, geometry, scan.name, unit, folder / PICTURE)
        figures["picture"] = PICTURE
    (folder / FIGURES).write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n")
    _tell(figures, folder, Console())
    if raw is None:
        raise RuntimeError(f"no slice came out: {status.message or 'the session does not say why'}")


def _own_settings(settings: Settings, *, recorded: bool) -> Settings:
    """Return the settings of a session that nobody watches: no PVs, and records only beside those of the run itself."""
    changes: dict[str, dict[str, Any]] = {"epics": {"enabled": False}, "intake": {"angle_key": ""}}
    if not recorded:
        changes["tiled"] = {"uri": ""}
    return settings.changed(changes)


def _taken(session: Session, uid: str) -> int:
    status = session.status
    if status.state == "failed":
        raise RuntimeError(f"the session has failed: {status.message}")
    return status.frames_received + status.frames_lost if status.run_uid == uid else 0


def _learn_on(session: Session, seconds: float, bars: Bars) -> None:
    """Let the session learn from what has come until it is ready and improves no more; its run has not ended yet."""
    began = time.monotonic()
    since_ready: list[float] = []
    while True:
        learning, run = session.status.learning, session.run
        if run is None or run.learning_problem or not run.reconstruction or not run.reconstruction.ready:
            return
        done = time.monotonic() - began
        note = "" if math.isnan(learning.held_out) else f", accuracy {learning.held_out:.2f}"
        bars.advance("learning", round(min(done, seconds)), round(seconds), note)
        if not learning.ready:
            since_ready.clear()
        elif not since_ready or learning.held_out != since_ready[-1]:
            since_ready.append(learning.held_out)
        # The noise of so few projections would be learned by heart.
        if done >= seconds or not still_improves(since_ready):
            return
        if session.wait_for(lambda status: status.state == "failed", min(LOOK_S, seconds - done)):
            return


def still_improves(accuracies: list[float]) -> bool:
    """Tell whether the last accuracies are lower than those before, or too few to tell."""
    newest, before = accuracies[-EVALUATIONS:], accuracies[-2 * EVALUATIONS : -EVALUATIONS]
    return len(before) < EVALUATIONS or sum(newest) < sum(before)


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
        "message": status.message,
    }
    return _without_nan(found)


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
    compared.draw(path, f"{Path(name).name}, axis at column {_axis_column(geometry, raw.axis_offset_mm):.2f}")


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
