"""Take frames from the detector over pvAccess the moment they are made; files fill what it loses."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from p4p import Value
from p4p.client.thread import Context

from bluesky_jit.intake.clocks import unix_times
from bluesky_jit.intake.dialects import ANGLE_SCALES
from bluesky_jit.messages import FrameKind, InlineFrames, Problem, RunStart
from bluesky_jit.settings import Settings

logger = logging.getLogger(__name__)

QUEUE_FRAMES = 64
"""Frames that the server keeps for us while we are late; it may keep fewer. A second at 60 frames/s."""
ANGLE_ATTRIBUTES = ("angle", "sample_rot", "samplerot", "streamtheta", "rotationangle", "theta")
"""Names, in small letters, that beamlines give to the attribute with the stage's angle."""
KINDS: Mapping[Any, FrameKind] = {
    0: "dark",
    1: "flat",
    2: "projection",
    "darkfield": "dark",
    "flatfield": "flat",
    "projection": "projection",
}
"""What the attribute FrameType says, as a number or, at APS, as a word."""
CLOCK_S = 2.0
"""A frame stamped so long before a run, when it comes during it, is not a late one: the detector's clock is wrong."""


@dataclass(slots=True, kw_only=True)
class _Open:
    """An open run: frames that were given to it, and of those that were not, what is told when there were no others."""

    start: RunStart
    given: int = 0
    too_old: int = 0
    early_s: float = 0.0
    """How long before the run the oldest of those was stamped."""
    shared: bool = False
    """There were frames that might as well have been another open run's."""


class PVATap:
    """Follow one NTNDArray, and hand each frame of a run on. p4p's own thread only parses and enqueues.

    A frame is complete when its attributes say what it is (FrameType) and at what angle; others wait for documents.
    """

    def __init__(
        self,
        pv: str,
        context: Context,
        submit: Callable[[InlineFrames], None],
        *,
        report: Callable[[Problem], None],
        angle: str = "",
        angle_unit: str = "deg",
    ) -> None:
        """Begin to follow; angle: the attribute that holds it, by default one of those that are known."""
        self.pv = pv
        self._submit = submit
        self._report = report
        self._angles = (angle.lower(),) if angle else ANGLE_ATTRIBUTES
        self._angle_scale = ANGLE_SCALES[angle_unit]
        self._runs: tuple[_Open, ...] = ()
        """Open runs. Replaced as a whole, since p4p's thread reads it."""
        self._told: set[tuple[str, str]] = set()
        self.connected = False
        """Somebody answers for the PV, and has sent something."""
        self._is_first = True
        """The next frame is the one that the server sends to whoever connects, however old it is."""
        self.last: tuple[int, float] | None = None
        """Number and time stamp of the newest frame, of a run or not."""
        self._monitor = context.monitor(
            pv, self._take, request=f"record[queueSize={QUEUE_FRAMES}]field()", notify_disconnect=True
        )

    def open_run(self, start: RunStart) -> None:
        """Give frames to a run from now on."""
        self._runs = (*self._runs, _Open(start=start))

    def end_run(self, run_uid: str) -> None:
        """Give no more frames to a run; say so if there were none."""
        ended = next((run for run in self._runs if run.start.run_uid == run_uid), None)
        if ended is None:
            return
        self._runs = tuple(run for run in self._runs if run is not ended)
        self._told = {(uid, topic) for uid, topic in self._told if uid != run_uid}
        if ended.given or ended.shared:
            return
        why = "nobody answers (intake.pva 'off'?)"
        if ended.too_old:
            why = f"stamped {ended.early_s:.1f} s before it began (set the detector's clock)"
        elif self.connected:
            why = "its plugin sends none (EnableCallbacks)"
        text = f"no frame of run {run_uid[:8]} came by PVA from {self.pv}, {why}: they are taken from its records"
        self._report(Problem(text=text, run_uid=run_uid))

    def close(self) -> None:
        self._monitor.close()

    def _take(self, update: Value | Exception) -> None:
        """Take what the monitor brings, in p4p's thread."""
        try:
            if isinstance(update, Value):
                self.connected = True
                first, self._is_first = self._is_first, False
                self._take_frame(update, first=first)
            else:
                self._lose()
        except Exception as error:
            logger.exception("a frame of %s could not be read", self.pv)
            self._tell(
                "unreadable", f"a frame of {self.pv} could not be read: {error}; it is taken from the run's records"
            )

    def _lose(self) -> None:
        runs, was_connected = self._runs, self.connected
        self.connected, self._is_first = False, True
        if was_connected and runs:
            text = f"{self.pv} is disconnected: frames are taken from the run's records until it is back"
            self._report(Problem(text=text, run_uid=runs[-1].start.run_uid))

    def _take_frame(self, update: Value, *, first: bool) -> None:
        runs = self._runs
        unique_id, time_s = int(update["uniqueId"]), _time_s(update)
        is_repeated = first and self.last == (unique_id, time_s)
        self.last = (unique_id, time_s)
        if not runs:
            return
        run = runs[-1]
        if is_repeated or time_s < run.start.time_s:
            if not first:
                self._leave_early(run, run.start.time_s - time_s)
            return
        if len(runs) > 1:
            for sharing in runs:
                sharing.shared = True
            self._tell(
                "shared",
                f"{len(runs)} open runs take the frames of {self.pv}, and nobody can tell whose they are: until one of "
                "them has ended, frames are taken from the runs' records",
            )
            return
        counts = self._counts(update)
        if counts is None:
            return
        attributes = {str(item["name"]).lower(): item["value"] for item in update["attribute"]}
        kind = _kind(attributes.get("frametype"))
        angle = next((_number(attributes[name]) for name in self._angles if name in attributes), math.nan)
        run.given += 1
        self._submit(
            InlineFrames(
                run_uid=run.start.run_uid,
                kind=kind or "projection",
                counts=counts[np.newaxis],
                unique_ids=np.array([unique_id], dtype=np.int64),
                frame_times_s=np.array([time_s]),
                angles_rad=np.array([angle * self._angle_scale]) if kind == "projection" else None,
                angle_source="frame attribute",
                tapped=True,
                awaits_documents=kind is None or (kind == "projection" and not math.isfinite(angle)),
            )
        )

    def _leave_early(self, run: _Open, early_s: float) -> None:
        """Leave out a frame that is stamped earlier than its run; say so where that is no delay."""
        run.too_old += 1
        run.early_s = max(run.early_s, early_s)
        if early_s > CLOCK_S:
            self._tell(
                "clock",
                f"frames by PVA are stamped {early_s:.0f} s before their run began: set the detector's clock; they are "
                "taken from the run's records",
            )

    def _counts(self, update: Value) -> np.ndarray | None:
        """Return a frame (n_v, n_u), or None for one that cannot be read here."""
        codec = str(update["codec.name"])
        if codec:
            self._tell(
                "codec",
                f"{self.pv} sends frames compressed by {codec}: connect the PVA plugin before the codec; they are "
                "taken from the run's records",
            )
            return None
        sizes = [int(dimension["size"]) for dimension in update["dimension"]]
        if len(sizes) != 2:
            self._tell(
                "dimensions",
                f"{self.pv} sends arrays of {len(sizes)} dimensions and not pictures: set the camera to Mono",
            )
            return None
        return np.asarray(update["value"]).reshape(sizes[1], sizes[0])

    def _tell(self, topic: str, text: str) -> None:
        """Report what is wrong, once in a run."""
        runs = self._runs
        uid = runs[-1].start.run_uid if runs else ""
        if (uid, topic) not in self._told:
            self._told = {*self._told, (uid, topic)}
            self._report(Problem(text=text, run_uid=uid))


def client_conf(settings: Settings, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return where to look for the detector's PVs: on this machine, unless the environment says otherwise."""
    environment = os.environ if environment is None else environment
    search = ("EPICS_PVA_ADDR_LIST", "EPICS_PVA_AUTO_ADDR_LIST", "EPICS_PVA_NAME_SERVERS")
    if any(name in environment for name in search):
        return {}
    return {
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        "EPICS_PVA_ADDR_LIST": "127.0.0.1",
        "EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{settings.beamline.pva_port}",
    }


def _time_s(update: Value) -> float:
    """Return the detector's time stamp in Unix seconds: the one that its files have, too."""
    for name in ("dataTimeStamp", "timeStamp"):
        stamp = update[name]
        if stamp["secondsPastEpoch"]:
            time_s = stamp["secondsPastEpoch"] + stamp["nanoseconds"] * 1e-9
            return float(unix_times(np.array([time_s]), time.time())[0])
    return 0.0


def _kind(frame_type: Any) -> FrameKind | None:
    return KINDS.get(frame_type.lower() if isinstance(frame_type, str) else frame_type)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
