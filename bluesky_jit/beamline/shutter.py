"""Devices with two states: the shutter, and the positioner that takes the sample out of the beam."""

from __future__ import annotations

from typing import Any

from ophyd import Component, Device, EpicsSignal
from ophyd.status import Status

SET_TIMEOUT_S = 30.0


class TwoStatePositioner(Device):
    """Bring something into one of two states, by the enum record at the device's prefix."""

    states: tuple[str, str]
    state = Component(EpicsSignal, "", string=True, put_complete=True, kind="hinted")

    def __init__(self, prefix: str, *, name: str, **kwargs: Any) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self.state.name = name

    def set(self, value: str) -> Status:
        """Ask for a state; the status is done when the record says that it is reached."""
        if value not in self.states:
            raise ValueError(f"{self.name} cannot be {value!r}: give one of {', '.join(self.states)}")
        return self.state.set(value, timeout=SET_TIMEOUT_S)


class Shutter(TwoStatePositioner):
    """Let the beam through, or not."""

    states = ("Closed", "Open")


class SamplePositioner(TwoStatePositioner):
    """Bring the sample into the beam, or out of it for flats."""

    states = ("In", "Out")
