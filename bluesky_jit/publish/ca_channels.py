"""Make the caproto channels of the PV table: their types, units, limits and access."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
from caproto import (
    AccessRights,
    AlarmSeverity,
    AlarmStatus,
    ChannelAlarm,
    ChannelChar,
    ChannelDouble,
    ChannelEnum,
    ChannelFloat,
    ChannelInteger,
    ChannelString,
    Forbidden,
)

from bluesky_jit.publish import table
from bluesky_jit.settings_sections import SliceSettings

DEFAULT_SIZE = 512
"""Largest slice that fits a CA waveform unaveraged when the settings give no size."""
NO_YES = ("No", "Yes")
DATA_TYPES = ("Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float32", "Float64")
COLOUR_MODES = ("Mono", "Bayer", "RGB1", "RGB2", "RGB3", "YUV444", "YUV422", "YUV411")

ALARMED = ("ArrayData", "UniqueId_RBV")
"""PVs of an image that carry its alarm."""

Accept = Callable[[table.Row, Any], Awaitable[Any]]


class PutRefused(ValueError):
    """Tell a client that its put does not fit."""


class _ReadOnly:
    def check_access(self, hostname: str, username: str) -> AccessRights:
        return AccessRights.READ


class _Control:
    line: table.Row
    accept: Accept
    status: AlarmStatus
    severity: AlarmSeverity

    async def verify_value(self, data: Any) -> Any:
        """Let the server decide about a client's put (its own writes are not verified)."""
        value = await self.accept(self.line, data)
        self.status, self.severity = AlarmStatus.NO_ALARM, AlarmSeverity.NO_ALARM
        return value


_KINDS: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "image": (ChannelFloat, {"value": np.zeros(1, dtype=np.float32)}),
    "float": (ChannelDouble, {"value": 0.0}),
    "int": (ChannelInteger, {"value": 0}),
    "bool": (ChannelEnum, {"value": NO_YES[0], "enum_strings": NO_YES}),
    "str": (ChannelString, {"value": ""}),
    "text": (ChannelChar, {"value": "", "max_length": 256}),
    "colour": (ChannelEnum, {"value": COLOUR_MODES[0], "enum_strings": COLOUR_MODES}),
    "dtype": (ChannelEnum, {"value": "Float32", "enum_strings": DATA_TYPES}),
}
_READ_ONLY = {kind: type(f"ReadOnly{base.__name__}", (_ReadOnly, base), {}) for kind, (base, _) in _KINDS.items()}
_CONTROL = {kind: type(f"Control{base.__name__}", (_Control, base), {}) for kind, (base, _) in _KINDS.items()}


def image_channels(line: table.Row, slices: SliceSettings) -> dict[str, Any]:
    """Return the channels of one image, by suffix."""
    size = slices.size or DEFAULT_SIZE
    length = slices.preview_size**3 if line.name == "Preview" else size**2
    own: dict[str, dict[str, Any]] = {
        "ArrayData": {"max_length": length, "units": line.units},
        "PluginType_RBV": {"value": "NDPluginStdArrays"},
        "PortName_RBV": {"value": line.name},
    }
    for suffix in ALARMED:
        own.setdefault(suffix, {})["alarm"] = _undefined()
    return {
        field.suffix: _READ_ONLY[field.type](**_KINDS[field.type][1] | own.get(field.suffix, {}))
        for field in table.IMAGE_FIELDS
    }


def _undefined() -> ChannelAlarm:
    return ChannelAlarm(status=int(AlarmStatus.UDF), severity=int(AlarmSeverity.INVALID_ALARM))


def scalar_channel(line: table.Row, controls: bool, accept: Accept) -> Any:
    """Return the channel of a scalar or control; puts go to `accept` when controls are allowed."""
    options = dict(_KINDS[line.type][1])
    if line.type in ("float", "int"):
        options["units"] = line.units
    if line.type == "float":
        options["precision"] = line.precision
    if line.limits is not None:
        for name in ("ctrl", "disp"):
            options[f"lower_{name}_limit"], options[f"upper_{name}_limit"] = line.limits
    if not (line.writable and controls):
        return _READ_ONLY[line.type](**options)
    channel = _CONTROL[line.type](**options)
    channel.line, channel.accept = line, accept
    return channel


def refusals_in_a_line() -> None:
    """Let caproto log each put that is refused in one line: what a client gets wrong is no fault of the server."""
    # The logger keeps one of it, however many servers there are.
    logging.getLogger("caproto.circ").addFilter(_in_a_line)


def _in_a_line(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, PutRefused | Forbidden) and isinstance(record.args, tuple):
        user, host, _ = record.args
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg, record.args, record.exc_info = "a put by %s on %s was refused: %s", (user, host, error), None
    return True
