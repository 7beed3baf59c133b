"""Follow a session through its published PVs, as any client would."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from p4p.client.thread import Context

from bluesky_jit.settings import Settings

POLL_S = 0.25
SCALARS = (
    *("RunUid", "ReconStatus", "Projections", "FramesReceived", "FramesLost", "Turns", "Message"),
    *("UpdateRate", "UpdateNumber", "Latency", "ReconTime"),
    *("Learning:Step", "Learning:StepsPerSecond", "Learning:Accuracy", "Learning:HeldOut"),
    *("Learning:Unseen", "Learning:WholeSlice", "Learning:ResidualVerdict"),
    *("Learning:Ready", "Learning:Reason"),
)


class Watch:
    """Read scalars and images of a session on this machine."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.epics.prefix
        conf = {
            "EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{settings.epics.pva_port}",
            "EPICS_PVA_AUTO_ADDR_LIST": "NO",
            "EPICS_PVA_ADDR_LIST": "127.0.0.1",
        }
        self._context = Context("pva", conf=conf, useenv=False, nt=False)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: Any) -> None:
        self._context.close()

    def values(self, names: Sequence[str] = SCALARS) -> dict[str, Any]:
        """Return scalars by their names in the PV table."""
        found: Any = self._context.get([self._prefix + name for name in names], timeout=5.0, throw=False)
        return {
            name: None if isinstance(value, Exception) else value["value"]
            for name, value in zip(names, found, strict=True)
        }

    def put(self, name: str, value: Any) -> None:
        """Write a control."""
        self._context.put(self._prefix + name, value, timeout=5.0)

    def follow(self, name: str, callback: Callable[[float], None]) -> Any:
        """Call back with every new value of a scalar; return the subscription, to be kept and closed."""
        return self._context.monitor(self._prefix + name, lambda value: callback(value["value"]))

    def follow_image(self, name: str, callback: Callable[[float], None]) -> Any:
        """Call back with the time of the newest projection in each new image, in Unix seconds; as `follow`."""
        return self._context.monitor(f"{self._prefix}{name}:Image", lambda value: callback(_data_time_s(value)))

    def image(self, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Return an image (ny, nx) with its attributes."""
        value: Any = self._context.get(f"{self._prefix}{name}:Image", timeout=5.0)
        sizes = [int(dimension["size"]) for dimension in value["dimension"]]
        attributes = {attribute["name"]: attribute["value"] for attribute in value["attribute"]}
        attributes["data_time_s"] = _data_time_s(value)
        return np.asarray(value["value"]).reshape(sizes[::-1]).squeeze(), attributes

    def wait_until_finished(self, uid: str, timeout_s: float) -> None:
        """Wait until the session has made the last slices of a run."""
        until = time.monotonic() + timeout_s
        values = self.values()
        while time.monotonic() < until:
            values = self.values()
            if values["RunUid"] == uid and values["ReconStatus"] == "idle":
                return
            time.sleep(POLL_S)
        raise RuntimeError(f"the session had not finished run {uid[:8]} after {timeout_s:g} s: {values['Message']}")


def _data_time_s(image: Any) -> float:
    return float(image["dataTimeStamp.secondsPastEpoch"] + 1e-9 * image["dataTimeStamp.nanoseconds"])
