"""Make the PVs of a simulated device: one table of channels that the Channel Access server serves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
from caproto import (
    AccessRights,
    AlarmSeverity,
    AlarmStatus,
    ChannelChar,
    ChannelData,
    ChannelDouble,
    ChannelEnum,
    ChannelInteger,
    ChannelShort,
    ChannelString,
)

LONG_TEXT_LENGTH = 256

Putter = Callable[[Any], Awaitable[Any]]
"""Acts on a client's put and returns the value to show; raising rejects the put."""


class _Channel(ChannelData):
    """Give a channel what a client's put does, and whether clients may put at all."""

    on_put: Putter | None = None
    read_only = False

    async def verify_value(self, data: Any) -> Any:
        data = await super().verify_value(data)
        if self.on_put is not None:
            data = await self.on_put(data)
        # A rejected put leaves the channel in alarm; the next good one has to take it away.
        alarm = self.alarm
        if alarm is not None and alarm.severity != AlarmSeverity.NO_ALARM:
            await alarm.write(status=AlarmStatus.NO_ALARM, severity=AlarmSeverity.NO_ALARM)
        return data

    def check_access(self, hostname: str, username: str) -> AccessRights:
        return AccessRights.READ if self.read_only else AccessRights.READ | AccessRights.WRITE


class _Double(_Channel, ChannelDouble): ...


class _Integer(_Channel, ChannelInteger): ...


class _Short(_Channel, ChannelShort): ...


class _Enum(_Channel, ChannelEnum): ...


class _String(_Channel, ChannelString): ...


class _Char(_Channel, ChannelChar): ...


async def show(channel: ChannelData, value: Any, *, time_s: float | None = None) -> None:
    """Write a value as the device itself, past the channel's own put."""
    metadata: dict[str, Any] = {} if time_s is None else {"timestamp": time_s}
    await channel.write(value, verify_value=False, **metadata)


class Setting:
    """Hold a setpoint and its read-back, the areaDetector pair `Name` and `Name_RBV`."""

    def __init__(self, setpoint: ChannelData, readback: ChannelData) -> None:
        self.setpoint = setpoint
        self.readback = readback

    @property
    def value(self) -> Any:
        return self.readback.value

    @property
    def yes(self) -> bool:
        """Say whether an enum of two states is in the second."""
        return self.readback.value == self.readback.enum_strings[1]  # type: ignore[attr-defined]

    async def show(self, value: Any) -> None:
        """Write both PVs as the device itself."""
        await show(self.setpoint, value)
        await show(self.readback, value)


class PVTable:
    """Collect the channels under a prefix; scoped tables share one database."""

    def __init__(self, prefix: str, database: dict[str, ChannelData] | None = None) -> None:
        self.prefix = prefix
        self.database: dict[str, ChannelData] = {} if database is None else database

    def scoped(self, prefix: str) -> PVTable:
        return PVTable(self.prefix + prefix, self.database)

    def number(
        self, name: str, value: float = 0.0, *, units: str = "", precision: int = 4, **options: Any
    ) -> ChannelDouble:
        return self._add(name, _Double(value=float(value), units=units, precision=precision), **options)

    def integer(self, name: str, value: int = 0, **options: Any) -> ChannelInteger:
        return self._add(name, _Integer(value=int(value)), **options)

    def short(self, name: str, value: int = 0, **options: Any) -> ChannelShort:
        return self._add(name, _Short(value=int(value)), **options)

    def choice(self, name: str, value: str, *, choices: Sequence[str] = ("No", "Yes"), **options: Any) -> ChannelEnum:
        return self._add(name, _Enum(value=value, enum_strings=tuple(choices)), **options)

    def text(self, name: str, value: str = "", **options: Any) -> ChannelString:
        """Add a string of at most 39 characters, as EPICS string records hold."""
        return self._add(name, _String(value=value), **options)

    def long_text(self, name: str, value: str = "", **options: Any) -> ChannelChar:
        """Add a waveform of characters, as areaDetector uses for paths."""
        return self._add(name, _Char(value=value, max_length=LONG_TEXT_LENGTH), **options)

    def integers(self, name: str, values: np.ndarray, **options: Any) -> ChannelInteger:
        return self._add(name, _Integer(value=values, max_length=values.size), **options)

    def shorts(self, name: str, values: np.ndarray, **options: Any) -> ChannelShort:
        return self._add(name, _Short(value=values, max_length=values.size), **options)

    def alias(self, name: str, channel: ChannelData) -> None:
        self.database[self.prefix + name] = channel

    def setting(
        self, name: str, make: Callable[..., ChannelData], value: Any, *, on_put: Putter | None = None, **options: Any
    ) -> Setting:
        """Add `name` and `name_RBV`; the read-back follows once `on_put` has accepted the value."""
        readback = make(name + "_RBV", value, read_only=True, **options)

        async def put(requested: Any) -> Any:
            accepted = requested if on_put is None else await on_put(requested)
            await show(readback, accepted)
            return accepted

        return Setting(make(name, value, on_put=put, **options), readback)

    def _add(self, name: str, channel: Any, *, on_put: Putter | None = None, read_only: bool = False) -> Any:
        channel.on_put = on_put
        channel.read_only = read_only
        self.database[self.prefix + name] = channel
        return channel


class Outbox:
    """Take values from any thread to their channels, newest first when the server is behind."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[ChannelData, tuple[Any, float | None]] = {}
        self._task: asyncio.Task[None] | None = None

    def post(self, values: dict[ChannelData, Any], *, time_s: float | None = None) -> None:
        """Queue values from a thread; a value still waiting for the same channel is replaced."""
        self._loop.call_soon_threadsafe(self._accept, values, time_s)

    def call(self, function: Callable[[], Any]) -> None:
        """Call a function in the server's loop."""
        self._loop.call_soon_threadsafe(function)

    def _accept(self, values: dict[ChannelData, Any], time_s: float | None) -> None:
        self._waiting.update({channel: (value, time_s) for channel, value in values.items()})
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._write())

    async def _write(self) -> None:
        while self._waiting:
            channel = next(iter(self._waiting))
            value, time_s = self._waiting.pop(channel)
            await show(channel, value, time_s=time_s)

    async def flush(self) -> None:
        """Wait until all that was posted before this call is shown."""
        posted = self._loop.create_future()
        self._loop.call_soon(posted.set_result, None)
        await posted
        if self._task is not None:
            await self._task
