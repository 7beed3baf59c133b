"""Decide what is in the beam: the fast shutter, and the sample's in/out translation."""

from __future__ import annotations

import asyncio

from sim_devices.pvs import PVTable, Setting

SHUTTER_S = 0.01
SAMPLE_S = 0.05


class TwoStates:
    """Serve an enum that takes a moment to change; its read-back and a put's completion follow."""

    def __init__(self, table: PVTable, name: str, *, states: tuple[str, str], value: str, travel_s: float) -> None:
        self._travel_s = travel_s
        self._setting: Setting = table.setting(name, table.choice, value, choices=states, on_put=self._put)

    @property
    def state(self) -> str:
        return self._setting.value

    async def _put(self, requested: str) -> str:
        if requested != self._setting.value:
            await asyncio.sleep(self._travel_s)
        return requested


class Beam:
    """Say what an exposure sees: nothing, an empty beam, or the sample."""

    def __init__(self, table: PVTable) -> None:
        self._shutter = TwoStates(table, "SHUTTER", states=("Closed", "Open"), value="Closed", travel_s=SHUTTER_S)
        self._sample = TwoStates(table, "SAMPLE", states=("Out", "In"), value="In", travel_s=SAMPLE_S)

    @property
    def on(self) -> bool:
        return self._shutter.state == "Open"

    @property
    def sample_in(self) -> bool:
        return self._sample.state == "In"
