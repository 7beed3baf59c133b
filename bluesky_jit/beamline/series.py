"""A free-running series of frames as pieces of a plan: start it, announce frames while they are written, end it."""

# ophyd carries no types, so that its devices do not match bluesky's protocols for pyright.
# pyright: reportArgumentType=false

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import Msg, short_uid
from ophyd import Device

from bluesky_jit.beamline.camera import Acquisition, TomoCamera

logger = logging.getLogger(__name__)

Plan = Generator[Msg, Any, Any]

FLUSH_S = 0.1
"""Time between announcements of new frames."""
STALL_S = 10.0
"""A camera that exposes but brings no frame for this long, beyond its period, has failed."""
LOST_S = 2.0
"""Frames that are not in the file this long after the camera finished are lost."""


class Series:
    """Take series of frames with a camera in one run, each into a file and a stream of its own."""

    def __init__(self, camera: TomoCamera, *, exposure_s: float, period_s: float | None) -> None:
        self.camera = camera
        self._exposure_s = exposure_s
        self._period_s = period_s
        self._declared: set[str] = set()
        self._stream = ""
        self._frames = 0

    def take(self, stream: str, frames: int) -> Plan:
        """Take frames into a stream. After a pause it goes on, without doing anything again."""

        def take() -> Plan:
            yield from self.prepare(stream, frames)
            yield from self.run()

        yield from bpp.rewindable_wrapper(take(), False)

    def prepare(self, stream: str, frames: int) -> Plan:
        """Make the camera ready and declare the stream."""
        acquisition = Acquisition(frames=frames, exposure_s=self._exposure_s, period_s=self._period_s, label=stream)
        yield from bps.prepare(self.camera, acquisition, group="prepare", wait=True)
        if stream not in self._declared:
            yield from bps.declare_stream(self.camera, name=stream, collect=True)
            self._declared.add(stream)
        self._stream, self._frames = stream, frames

    def run(self, check: Callable[[], Plan] | None = None) -> Plan:
        """Expose and announce frames as they are written, until all are; `check` may raise meanwhile."""
        camera = self.camera
        group = short_uid("complete")
        yield from bps.kickoff(camera, wait=True)
        yield from bps.complete(camera, group=group, wait=False)
        written, since = 0, time.monotonic()
        done = False
        while not done:
            done = yield from bps.wait(group, timeout=FLUSH_S, error_on_timeout=False)
            yield from bps.collect(camera, name=self._stream)
            if check is not None and not done:
                yield from check()
            now = yield from bps.rd(camera.hdf5.num_captured)
            if now != written:
                written, since = now, time.monotonic()
            if not done and (yield from self._is_over(written, time.monotonic() - since)):
                yield from bps.stop(camera)
        self._stream = ""

    def end(self) -> Plan:
        """Stop the camera; frames of an unfinished series that are in the file still belong to the run."""
        yield from bps.stop(self.camera)
        deadline = time.monotonic() + LOST_S
        while (yield from bps.rd(self.camera.cam.acquire)) and time.monotonic() < deadline:
            yield from bps.sleep(FLUSH_S)
        if self._stream:
            yield from bps.collect(self.camera, name=self._stream)
            self._stream = ""

    def _is_over(self, written: int, quiet_s: float) -> Plan:
        """Return whether the camera finished with frames missing; raise when it stalls or its disk is full."""
        writer = self.camera.hdf5
        if written < self._frames and (yield from bps.rd(writer.write_status)):
            message = yield from bps.rd(writer.write_message)
            raise OSError(
                f"{self.camera.name} cannot write its file, after {written} of {self._frames} {self._stream}: "
                f"{message or 'no reason given'}; free some space on its disk, then repeat the scan"
            )
        exposing = yield from bps.rd(self.camera.cam.acquire)
        if exposing and quiet_s > STALL_S + max(self._exposure_s, self._period_s or 0.0):
            raise RuntimeError(
                f"{self.camera.name} brought no frame for {quiet_s:.0f} s, after {written} of {self._frames} "
                f"{self._stream}: look at its IOC, then repeat the scan"
            )
        if exposing or quiet_s < LOST_S:
            return False
        logger.warning(
            "%s finished, but only %d of %d frames for %s are in the file: the scan goes on without the others",
            self.camera.name,
            written,
            self._frames,
            self._stream,
        )
        return True


def unconnected(devices: Sequence[Device]) -> str:
    """Return the names of devices that do not answer."""
    return ", ".join(device.name for device in devices if not device.connected)


def tolerant(device: Device, step: Callable[[], Plan]) -> Plan:
    """Run one step of a clean-up; a device that does not answer must not keep the others from being made safe."""

    def report(error: Exception) -> Plan:
        logger.error("while making %s safe: %s", device.name, error)
        yield from bps.null()

    if device.connected:
        yield from bpp.contingency_wrapper(step(), except_plan=report, auto_raise=False)
