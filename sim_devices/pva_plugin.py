"""Serve every frame over pvAccess as an NTNDArray, as areaDetector's NDPluginPva does."""

from __future__ import annotations

from typing import Any

import numpy as np
from caproto import ChannelData
from p4p import Value
from p4p.nt import NTNDArray
from p4p.server import Server
from p4p.server.thread import SharedPV

from sim_devices.faults import Faults
from sim_devices.frame import Frame, FrameType
from sim_devices.plugin import Plugin
from sim_devices.pvs import Outbox, PVTable


def _time(time_s: float) -> dict[str, int]:
    seconds, fraction = divmod(time_s, 1.0)
    return {"secondsPastEpoch": int(seconds), "nanoseconds": int(fraction * 1e9)}


class FrameNDArray(NTNDArray):
    """Wrap frames; p4p's own `wrap` sends uniqueId 0 and time 0 for ever, and viewers then freeze on frame one."""

    def wrap(self, value: Frame, **options: Any) -> Value:
        wrapped: Value = super().wrap(value.counts, attrib=value.attributes, **options)
        wrapped["uniqueId"] = value.unique_id
        # Both in Unix time, as NDPluginPva sends them.
        wrapped["timeStamp"] = _time(value.time_s)
        wrapped["dataTimeStamp"] = _time(value.time_s)
        return wrapped


class PvaPlugin(Plugin):
    """Post each frame to `Image`; a client that is late loses frames and sees the gap in uniqueId."""

    def __init__(self, table: PVTable, outbox: Outbox, *, shape: tuple[int, int], faults: Faults) -> None:
        super().__init__(table, outbox, port="PVA1", plugin_type="NDPluginPva", shape=shape)
        self._faults = faults
        self._name = table.prefix + "Image"
        table.text("PvName_RBV", self._name[:39], read_only=True)
        blank = Frame(
            counts=np.zeros(shape, dtype=np.uint16),
            unique_id=0,
            time_s=0.0,
            angle_deg=0.0,
            frame_type=FrameType.DARK,
            phantom_time_s=0.0,
        )
        self._image = SharedPV(nt=FrameNDArray(), initial=blank)
        self._server: Server | None = None

    def open(self) -> None:
        """Serve, where the environment's EPICS_PVAS_ variables say."""
        self._server = Server(providers=[{self._name: self._image}])

    def close(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def handle(self, frame: Frame) -> dict[ChannelData, Any]:
        for arriving in self._faults.apply(frame, self.outbox) if self._faults.only_pva else [frame]:
            self._image.post(arriving)
        return {}

    def finish(self) -> None:
        if self._faults.only_pva:
            for frame in self._faults.release():
                self._image.post(frame)
