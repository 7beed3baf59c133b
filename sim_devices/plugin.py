"""Serve what every areaDetector plugin has in common, and the image plugin, which has little more."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from caproto import ChannelData

from sim_devices.frame import Frame
from sim_devices.pvs import Outbox, PVTable

CAMERA_PORT = "CAM"
DATA_TYPES = ("Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float32", "Float64")
COLOR_MODES = ("Mono", "Bayer", "RGB1", "RGB2", "RGB3", "YUV444", "YUV422", "YUV421")
MAX_DIMENSIONS = 10


class Counter:
    """Count frames in the camera's thread, from whatever a client last set."""

    def __init__(self, table: PVTable, name: str) -> None:
        self.value = 0
        self.channel = table.setting(name, table.integer, 0, on_put=self._put).readback

    def add(self) -> int:
        self.value += 1
        return self.value

    async def _put(self, requested: int) -> int:
        self.value = int(requested)
        return self.value


class Plugin:
    """Take frames from the camera in the camera's own thread, as a plugin with blocking callbacks does."""

    def __init__(self, table: PVTable, outbox: Outbox, *, port: str, plugin_type: str, shape: tuple[int, int]) -> None:
        self.table = table
        self.outbox = outbox
        n_v, n_u = shape
        # ophyd reads these as strings: a waveform of characters in their place makes staging fail.
        table.text("PortName_RBV", port, read_only=True)
        table.text("PluginType_RBV", plugin_type, read_only=True)
        table.text("ADCoreVersion_RBV", "3.13.0", read_only=True)
        table.text("DriverVersion_RBV", "3.13.0", read_only=True)
        table.setting("NDArrayPort", table.text, CAMERA_PORT)
        table.setting("NDArrayAddress", table.integer, 0)
        self.enabled = table.setting("EnableCallbacks", table.choice, "Enable", choices=("Disable", "Enable"))
        table.setting("BlockingCallbacks", table.choice, "Yes")
        self._min_callback_time = table.setting("MinCallbackTime", table.number, 0.0, units="s")
        self._counter = Counter(table, "ArrayCounter")
        table.setting("DroppedArrays", table.integer, 0)
        table.setting("QueueSize", table.integer, 1)
        table.integer("QueueFree", 1, read_only=True)
        table.integer("QueueUse", 0, read_only=True)
        # Sizes are known from the start, so that ophyd's file plugin never finds itself unprimed.
        for index, size in enumerate((n_u, n_v, 0)):
            table.integer(f"ArraySize{index}_RBV", size, read_only=True)
        table.integer("NDimensions_RBV", 2, read_only=True)
        dimensions = np.zeros(MAX_DIMENSIONS, dtype=np.int32)
        dimensions[:2] = n_u, n_v
        table.integers("Dimensions_RBV", dimensions, read_only=True)
        table.choice("DataType_RBV", "UInt16", choices=DATA_TYPES, read_only=True)
        table.choice("ColorMode_RBV", "Mono", choices=COLOR_MODES, read_only=True)
        table.choice("BayerPattern_RBV", "RGGB", choices=("RGGB", "GBRG", "GRBG", "BGGR"), read_only=True)
        self._unique_id = table.integer("UniqueId_RBV", 0, read_only=True)
        self._time_stamp = table.number("TimeStamp_RBV", 0.0, precision=9, read_only=True)
        self._seconds = table.integer("EpicsTSSec_RBV", 0, read_only=True)
        self._nanoseconds = table.integer("EpicsTSNsec_RBV", 0, read_only=True)

    def process(self, frame: Frame) -> None:
        """Handle one frame, if enabled."""
        if not self.enabled.yes:
            return
        shown = self.handle(frame)
        seconds, nanoseconds = frame.epics_time
        values: dict[ChannelData, Any] = {
            self._counter.channel: self._counter.add(),
            self._unique_id: frame.unique_id,
            self._time_stamp: seconds + nanoseconds * 1e-9,
            self._seconds: seconds,
            self._nanoseconds: nanoseconds,
        }
        self.outbox.post(values | shown, time_s=frame.time_s)

    def handle(self, frame: Frame) -> dict[ChannelData, Any]:
        """Do what this plugin is for; return the values of its own PVs."""
        raise NotImplementedError

    def finish(self) -> None:
        """Do what is left to do when an acquisition has ended."""


class ImagePlugin(Plugin):
    """Serve the newest image over Channel Access, at most once each MinCallbackTime."""

    def __init__(self, table: PVTable, outbox: Outbox, *, shape: tuple[int, int]) -> None:
        super().__init__(table, outbox, port="IMAGE1", plugin_type="NDPluginStdArrays", shape=shape)
        # Channel Access has no unsigned 16-bit type: clients view the bits as uint16.
        self._array = table.shorts("ArrayData", np.zeros(shape[0] * shape[1], dtype=np.int16), read_only=True)
        self._shown_s = -np.inf
        self._skipped: Frame | None = None

    def handle(self, frame: Frame) -> dict[ChannelData, Any]:
        now_s = time.monotonic()
        if now_s - self._shown_s < self._min_callback_time.value:
            self._skipped = frame
            return {}
        self._shown_s = now_s
        self._skipped = None
        return {self._array: frame.counts.reshape(-1).view(np.int16)}

    def finish(self) -> None:
        # A client that reads the image after an acquisition finds its last frame, whatever MinCallbackTime says.
        if self._skipped is not None:
            self.outbox.post(
                {self._array: self._skipped.counts.reshape(-1).view(np.int16)}, time_s=self._skipped.time_s
            )
            self._skipped = None
