"""A camera's pvAccess image on the loopback interface, as NDPluginPva serves it, in the test's own process."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import numpy as np
from p4p import Value
from p4p.nt import NTNDArray
from p4p.server import Server
from p4p.server.thread import SharedPV

LOOPBACK = {
    "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
    "EPICS_PVAS_BEACON_ADDR_LIST": "127.0.0.1",
    "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
    # Any that is free.
    "EPICS_PVAS_SERVER_PORT": "0",
    "EPICS_PVAS_BROADCAST_PORT": "0",
}


class PVACamera:
    """Serve one NTNDArray, and post frames to it with any number, time stamp and attributes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._pv = SharedPV(nt=_Plain(), initial=_wrapped(np.zeros((2, 3), dtype=np.uint16), 0, 0.0, {}))
        self._server = Server(providers=[{name: self._pv}], conf=LOOPBACK, useenv=False)

    @property
    def client_conf(self) -> dict[str, str]:
        """Return the configuration of a client that finds this server only."""
        return self._server.conf()

    def post(self, counts: np.ndarray, unique_id: int, time_s: float, **attributes: Any) -> None:
        self._pv.post(_wrapped(counts, unique_id, time_s, attributes))

    def post_changed(self, counts: np.ndarray, changes: dict[str, Any]) -> None:
        """Post a frame some of whose fields are not what they should be."""
        value = _wrapped(counts, 1, 2e9, {})
        for field, content in changes.items():
            value[field] = content
        self._pv.post(value)

    def disconnect(self) -> None:
        """Let all clients go; they come back by themselves."""
        self._pv.close()

    def come_back(self, counts: np.ndarray, unique_id: int, time_s: float, **attributes: Any) -> None:
        """Serve again, beginning with a frame."""
        self._pv.open(_wrapped(counts, unique_id, time_s, attributes))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        self._pv.close(destroy=True)


class _Plain(NTNDArray):
    """Wrap values that are whole already."""

    def wrap(self, value: Any, **options: Any) -> Value:
        return value if isinstance(value, Value) else super().wrap(value, **options)


def _wrapped(counts: np.ndarray, unique_id: int, time_s: float, attributes: dict[str, Any]) -> Value:
    value = NTNDArray().wrap(counts, attrib=attributes)
    seconds, fraction = divmod(time_s, 1.0)
    stamp = {"secondsPastEpoch": int(seconds), "nanoseconds": round(fraction * 1e9)}
    # Fields that are not set keep what they were at the client.
    value["codec.name"] = ""
    value["uniqueId"], value["timeStamp"], value["dataTimeStamp"] = unique_id, stamp, stamp
    return value
