"""Expose frames: the camera's PVs and its acquisition thread."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from caproto import SkipWrite

from sim_devices.faults import Faults
from sim_devices.frame import Frame
from sim_devices.plugin import CAMERA_PORT, COLOR_MODES, DATA_TYPES, Counter, Plugin
from sim_devices.pvs import Outbox, PVTable, show
from sim_devices.scene import Scene

logger = logging.getLogger(__name__)

IMAGE_MODES = ("Single", "Multiple", "Continuous")
TRIGGER_MODES = ("Internal", "External")
FRAME_TYPES = ("Normal", "Background", "FlatField")
SHORTEST_EXPOSURE_S = 1e-4
# Cameras take a moment to arm, and stock ophyd relies on it: SingleTrigger loses the status of an acquisition that ends
# before trigger() returns.
ARMING_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """Say how many frames to take (None: until stopped) and how."""

    frames: int | None
    exposure_s: float
    period_s: float


class Camera:
    """Serve `cam1:` and run acquisitions in a thread; the plugins handle each frame in that thread, in order."""

    def __init__(
        self,
        table: PVTable,
        outbox: Outbox,
        *,
        scene: Scene,
        faults: Faults,
        plugins: Sequence[Plugin],
        max_rate_hz: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._outbox = outbox
        self._scene = scene
        self._faults = faults
        self._plugins = plugins
        if not (math.isfinite(max_rate_hz) and max_rate_hz > 0):
            raise ValueError(f"the most frames in a second are {max_rate_hz}: give a positive number")
        self._shortest_period_s = 1.0 / max_rate_hz
        self._clock = clock
        self._stop = threading.Event()
        self._running: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="camera")
        self._unique_id = 0

        self._acquire = table.choice("Acquire", "Done", choices=("Done", "Acquire"), on_put=self._put_acquire)
        self._acquire_readback = table.choice("Acquire_RBV", "Done", choices=("Done", "Acquiring"), read_only=True)
        self._exposure = table.setting("AcquireTime", table.number, 0.02, on_put=_check_exposure, units="s")
        self._period = table.setting("AcquirePeriod", table.number, 0.025, on_put=_check_period, units="s")
        self._num_images = table.setting("NumImages", table.integer, 1, on_put=_check_num_images)
        self._image_mode = table.setting("ImageMode", table.choice, "Single", choices=IMAGE_MODES)
        self._callbacks = table.setting("ArrayCallbacks", table.choice, "Enable", choices=("Disable", "Enable"))
        self._counter = Counter(table, "ArrayCounter")
        self._images_counter = table.integer("NumImagesCounter_RBV", 0, read_only=True)
        self._rate = table.number("ArrayRate_RBV", units="Hz", read_only=True)
        self._state = table.choice("DetectorState_RBV", "Idle", choices=("Idle", "Acquire", "Error"), read_only=True)
        self._message = table.text("StatusMessage_RBV", "idle", read_only=True)
        self._add_description(table, *scene.shape)

    def _add_description(self, table: PVTable, n_v: int, n_u: int) -> None:
        table.text("PortName_RBV", CAMERA_PORT, read_only=True)
        table.text("Manufacturer_RBV", "bluesky_jit", read_only=True)
        table.text("Model_RBV", "simulated tomography camera", read_only=True)
        table.text("ADCoreVersion_RBV", "3.13.0", read_only=True)
        # What the camera cannot do it refuses: a client that was told yes would believe its frames.
        fixed = (
            ("TriggerMode", "Internal", TRIGGER_MODES),
            ("FrameType", "Normal", FRAME_TYPES),
            ("DataType", "UInt16", DATA_TYPES),
            ("ColorMode", "Mono", COLOR_MODES),
        )
        for name, value, choices in fixed:
            table.setting(name, table.choice, value, choices=choices, on_put=_only(name, value))
        table.setting("NumExposures", table.integer, 1, on_put=_only("NumExposures", 1))
        table.setting("Gain", table.number, 1.0, on_put=_only("Gain", 1.0))
        # ophyd asks whether the data type can be believed.
        table.short("DataType_RBV.DISA", 0, read_only=True)
        for axis, size in (("X", n_u), ("Y", n_v)):
            table.integer(f"MaxSize{axis}_RBV", size, read_only=True)
            table.setting(f"Size{axis}", table.integer, size, on_put=_only(f"Size{axis}", size))
            table.setting(f"Min{axis}", table.integer, 0, on_put=_only(f"Min{axis}", 0))
            table.setting(f"Bin{axis}", table.integer, 1, on_put=_only(f"Bin{axis}", 1))
            table.integer(f"ArraySize{axis}_RBV", size, read_only=True)
        table.integer("ArraySizeZ_RBV", 0, read_only=True)
        table.integer("ArraySize_RBV", n_u * n_v * 2, read_only=True)

    async def close(self) -> None:
        """Stop acquiring and wait for the thread."""
        await self._finish()
        self._thread.shutdown()

    async def _put_acquire(self, requested: str) -> str:
        if requested == "Done":
            await self._finish()
            return requested
        if self._running is None:
            self._stop.clear()
            await show(self._acquire, "Acquire")
            await show(self._acquire_readback, "Acquiring")
            await show(self._state, "Acquire")
            await show(self._message, "acquiring")
            self._running = asyncio.create_task(self._run())
        # Put-completion: the put ends with the acquisition, and the client that gave up does not end it.
        await asyncio.shield(self._running)
        raise SkipWrite

    async def _finish(self) -> None:
        self._stop.set()
        if self._running is not None:
            await asyncio.shield(self._running)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        state, message = "Idle", "idle"
        try:
            await loop.run_in_executor(self._thread, self._expose, self._acquisition())
        except Exception:
            # The camera must go back to idle whatever failed, or every client waits for ever.
            logger.exception("the acquisition failed")
            state, message = "Error", "failed: see the IOC's log"
        # All that the frames changed is shown before the acquisition is seen to end.
        await self._outbox.flush()
        self._running = None
        await show(self._state, state)
        await show(self._message, message)
        await show(self._acquire, "Done")
        await show(self._acquire_readback, "Done")

    def _acquisition(self) -> Acquisition:
        frames = {"Single": 1, "Multiple": self._num_images.value, "Continuous": None}[self._image_mode.value]
        exposure_s = self._exposure.value
        return Acquisition(
            frames=frames,
            exposure_s=exposure_s,
            period_s=max(self._period.value, exposure_s, self._shortest_period_s),
        )

    def _expose(self, acquisition: Acquisition) -> None:
        """Take the frames of one acquisition, in the camera's thread."""
        start_s = self._clock() + ARMING_S
        taken = 0
        while acquisition.frames is None or taken < acquisition.frames:
            start_s += self._stalled()
            middle_s = start_s + acquisition.exposure_s / 2
            if self._stop.wait(max(middle_s - self._clock(), 0.0)):
                break
            # Rendered during the second half of the exposure, when nothing can change its middle any more.
            frame = self._scene.expose(
                time_s=middle_s, exposure_s=acquisition.exposure_s, unique_id=self._unique_id + 1
            )
            if self._stop.wait(max(start_s + acquisition.exposure_s - self._clock(), 0.0)):
                break
            self._unique_id += 1
            taken += 1
            self._deliver(frame, taken, acquisition)
            # A camera that cannot keep the rate takes its frames later; it does not take several at once.
            start_s = max(start_s + acquisition.period_s, self._clock() - acquisition.period_s)
        if not self._faults.only_pva:
            for frame in self._faults.release():
                self._process(frame)
        for plugin in self._plugins:
            plugin.finish()

    def _stalled(self) -> float:
        seconds = self._faults.take_stall()
        if seconds > 0:
            logger.warning("stalled on request for %g s", seconds)
            self._stop.wait(seconds)
            self._faults.stall_over(self._outbox)
        return seconds

    def _deliver(self, frame: Frame, taken: int, acquisition: Acquisition) -> None:
        values: dict[Any, Any] = {
            self._counter.channel: self._counter.add(),
            self._images_counter: taken,
            self._rate: 1.0 / acquisition.period_s,
        }
        self._outbox.post(values, time_s=frame.time_s)
        if self._callbacks.yes:
            frames = [frame] if self._faults.only_pva else self._faults.apply(frame, self._outbox)
            for arriving in frames:
                self._process(arriving)

    def _process(self, frame: Frame) -> None:
        for plugin in self._plugins:
            plugin.process(frame)


async def _check_exposure(seconds: float) -> float:
    if not (math.isfinite(seconds) and seconds >= SHORTEST_EXPOSURE_S):
        raise ValueError(f"AcquireTime is {seconds}: give at least {SHORTEST_EXPOSURE_S} s")
    return seconds


async def _check_period(seconds: float) -> float:
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"AcquirePeriod is {seconds}: give seconds, or 0 for as fast as the exposure allows")
    return seconds


async def _check_num_images(images: int) -> int:
    if images < 1:
        raise ValueError(f"NumImages is {images}: give at least 1")
    return int(images)


def _only(name: str, value: Any) -> Any:
    async def check(requested: Any) -> Any:
        if requested != value:
            raise ValueError(f"{name} is {requested}: the simulated camera only does {value}")
        return requested

    return check
