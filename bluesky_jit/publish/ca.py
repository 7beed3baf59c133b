"""Serve the PV table on Channel Access, from a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
from caproto import AlarmSeverity, AlarmStatus, CaprotoNetworkError
from caproto.asyncio.server import Context

from bluesky_jit.messages import Control, RunOpened, SessionStatus, Severity, SinkMessage, Update
from bluesky_jit.publish import table
from bluesky_jit.publish.ca_channels import (
    ALARMED,
    NO_YES,
    PutRefused,
    image_channels,
    refusals_in_a_line,
    scalar_channel,
)
from bluesky_jit.publish.image_alarms import ImageAlarms
from bluesky_jit.publish.on_show import OnShow
from bluesky_jit.settings import Settings
from bluesky_jit.settings_sections import EpicsSettings

logger = logging.getLogger(__name__)

SEVERITIES: Mapping[Severity, AlarmSeverity] = {
    "NO_ALARM": AlarmSeverity.NO_ALARM,
    "MINOR": AlarmSeverity.MINOR_ALARM,
    "MAJOR": AlarmSeverity.MAJOR_ALARM,
    "INVALID": AlarmSeverity.INVALID_ALARM,
}


class CAServer:
    """Show what the session publishes as CA PVs and hand puts to `submit`.

    Each PV shows the latest message: a slow network thins out what clients see and never holds up the caller.
    """

    def __init__(self, settings: Settings, submit: Callable[[Control], None]) -> None:
        self._settings = settings
        self._submit = submit
        prefix, controls = settings.epics.prefix, settings.epics.controls
        parts = {line.name: image_channels(line, settings.slices) for line in table.rows("image")}
        refusals_in_a_line()
        self._images = {name: _Image(channels) for name, channels in parts.items()}
        self._scalars = {r.name: scalar_channel(r, controls, self._accept) for r in table.rows("scalar", "control")}
        self._channels = {prefix + name: channel for name, channel in self._scalars.items()} | {
            f"{prefix}{name}:{suffix}": part for name, channels in parts.items() for suffix, part in channels.items()
        }
        self._posted: dict[str, table.Reading | None] = {}
        self._alarms = ImageAlarms()
        self._on_show = OnShow()
        self._opened: RunOpened | None = None
        self._status = SessionStatus(time_s=time.time())
        self._heard_s = time.monotonic()
        self._silent = False
        self._lock = threading.Lock()
        self._waiting: dict[str, SinkMessage] = {}
        self._started = threading.Event()
        self._error: BaseException | None = None
        self.port = settings.epics.ca_port
        self._thread = threading.Thread(target=self._run, name="ca-server", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            raise RuntimeError(
                f"the CA server cannot listen on {settings.epics.interface}:{settings.epics.ca_port} ({self._error}): "
                "set epics.interface and epics.ca_port"
            ) from self._error

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the PVs served."""
        return tuple(self._channels)

    def publish(self, message: SinkMessage) -> None:
        """Take a message from any thread; the latest of each kind is posted."""
        with self._lock:
            if not self._on_show.takes(message):
                return
        key = table.image_name(message) if isinstance(message, Update) else type(message).__name__
        with self._lock:
            first = not self._waiting
            # In the order of the latest ones: an image that follows a status is not put in doubt by it.
            self._waiting.pop(key, None)
            self._waiting[key] = message
        if first and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._wake.set)

    def close(self) -> None:
        """Stop serving; clients see a disconnect."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._server.cancel)
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except (OSError, RuntimeError, ValueError) as error:
            self._error = error
            # Before that, whoever starts the server is told.
            if self._started.is_set():
                logger.exception("the CA server has stopped")
        finally:
            self._started.set()

    async def _serve(self) -> None:
        epics = self._settings.epics
        if ipaddress.ip_address(epics.interface).is_loopback:
            # Without this caproto announces a loopback server to the whole subnet.
            os.environ.setdefault("EPICS_CAS_AUTO_BEACON_ADDR_LIST", "NO")
            os.environ.setdefault("EPICS_CAS_BEACON_ADDR_LIST", epics.interface)
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._context = _Context(self._channels, epics)
        self._server = asyncio.create_task(self._context.run(startup_hook=self._post_for_ever))
        await self._server

    async def _post_for_ever(self, async_lib: Any) -> None:
        self.port = self._context.port
        if self.port != self._settings.epics.ca_port:
            logger.warning(
                "CA port %d is taken: PVs are on port %d; set epics.ca_port", self._settings.epics.ca_port, self.port
            )
        await self._post_status(self._status)
        self._started.set()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), timeout=table.SILENCE_S / 5)
            self._wake.clear()
            with self._lock:
                waiting, self._waiting = self._waiting, {}
            for message in waiting.values():
                try:
                    await self._post(message)
                except Exception:
                    logger.exception("a %s could not be posted on CA", type(message).__name__)
            await self._watch()

    async def _watch(self) -> None:
        if not self._silent and time.monotonic() - self._heard_s > table.SILENCE_S:
            self._silent = True
            await self._post_status(table.silent(self._status, time.time()))

    async def _post(self, message: SinkMessage) -> None:
        alarms = self._alarms.take(message)
        if not isinstance(message, Update):
            for name, alarm in alarms.items():
                await self._images[name].alarm(alarm.severity)
        match message:
            case RunOpened():
                # What was refused is told until the next run, as the session's own messages are.
                self._posted.pop("Message", None)
                await self._post_limits()
            case SessionStatus():
                self._heard_s, self._silent, self._status = time.monotonic(), False, message
                await self._post_limits()
                await self._post_status(message)
            case Update():
                name = table.image_name(message)
                await self._images[name].post(message, self._alarms.of(name).severity)
                if moved := table.position(message):
                    await self._show(*moved, message.made_time_s)

    async def _post_limits(self) -> None:
        """Post what the run on show lets controls be, if it is another one than before."""
        opened = self._on_show.opened
        if opened is self._opened:
            return
        self._opened = opened
        for line in table.rows("control"):
            span = table.limits(line, self._opened)
            if span is not None:
                low, high = span
                await self._scalars[line.name].write_metadata(
                    lower_ctrl_limit=low, upper_ctrl_limit=high, lower_disp_limit=low, upper_disp_limit=high
                )

    async def _post_status(self, status: SessionStatus) -> None:
        for line in table.rows("scalar", "control"):
            reading = table.reading(line, status, self._opened)
            if reading is not None:
                await self._show(line, reading, status.time_s)

    async def _show(self, line: table.Row, reading: table.Reading, time_s: float) -> None:
        # The heartbeat is renewed every time; for the rest no news is no traffic (repr, because NaN is not NaN).
        if line.rule == "running" or repr(reading) != repr(self._posted.get(line.name)):
            self._posted[line.name] = reading
            await self._write(line, reading.value, reading.severity, time_s)

    async def _write(self, line: table.Row, value: Any, severity: Severity, time_s: float) -> None:
        if line.type == "bool":
            value = NO_YES[bool(value)]
        elif line.type in ("str", "text"):
            value = value.encode("latin-1", "replace").decode("latin-1")[: 255 if line.type == "text" else 39]
        await self._scalars[line.name].write(
            value, verify_value=False, timestamp=time_s, status=_status(severity), severity=SEVERITIES[severity]
        )

    async def _accept(self, line: table.Row, value: Any) -> Any:
        """Check a client's put, hand it to the session and return what the PV shows from now on."""
        if line.type == "bool" and value in NO_YES:
            value = NO_YES.index(value)
        # Whatever becomes of the put, the next status or image shows what is true.
        self._posted.pop(line.name, None)
        try:
            value = table.checked(line, value, self._opened)
            self._submit(Control(name=line.name, value=value))
        except ValueError as error:
            # The next status is no news, so that the refusal stays to be read.
            self._posted["Message"] = table.reading(table.row("Message"), self._status)
            await self._write(table.row("Message"), str(error), "MINOR", time.time())
            raise PutRefused(str(error)) from error
        value = type(value)() if line.momentary else value
        return NO_YES[value] if line.type == "bool" else value


class _Context(Context):
    """Listen on the port of the settings: caproto by itself only takes it from the environment."""

    ca_server_port: Any
    port: Any

    def __init__(self, channels: dict[str, Any], epics: EpicsSettings) -> None:
        super().__init__(channels, [epics.interface])
        self.ca_server_port = epics.ca_port

    async def broadcast_beacon_loop(self) -> NoReturn:
        self.beacon_socks = {address: (i, _Beacon(sock)) for address, (i, sock) in self.beacon_socks.items()}
        await super().broadcast_beacon_loop()


class _Beacon:
    """Send beacons to whoever listens: on loopback a missing CA repeater answers with a refusal, which is no error."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    async def send(self, data: bytes) -> None:
        with contextlib.suppress(CaprotoNetworkError):
            await self._sock.send(data)

    def close(self) -> None:
        self._sock.close()


class _Image:
    """Post updates on the PVs of one image, in the layout of areaDetector's image plugin."""

    def __init__(self, channels: dict[str, Any]) -> None:
        self._channels = channels
        self._length: int = channels["ArrayData"].max_length
        self._count = 0

    async def post(self, update: Update, severity: Severity) -> None:
        image, binning = fitted(update.image, self._length)
        self._count += 1
        values = {
            **{f"ArraySize{axis}_RBV": size for axis, size in enumerate(reversed(image.shape))},
            "NDimensions_RBV": image.ndim,
            "Binning_RBV": binning,
            "ArrayData": image.ravel(),
            "TimeStamp_RBV": update.frame_time_s,
            "UniqueId_RBV": update.number,
            "ArrayCounter_RBV": self._count,
        }
        for name, value in values.items():
            alarm = image_alarm(severity) if name in ALARMED else {}
            await self._channels[name].write(value, verify_value=False, timestamp=update.made_time_s, **alarm)

    async def alarm(self, severity: Severity) -> None:
        for name in ALARMED:
            await self._channels[name].alarm.write(**image_alarm(severity))


def image_alarm(severity: Severity) -> dict[str, Any]:
    """Return the alarm of an image as caproto takes it."""
    status = AlarmStatus.UDF if severity == "INVALID" else _status(severity)
    return {"status": status, "severity": SEVERITIES[severity]}


def fitted(image: np.ndarray, length: int) -> tuple[np.ndarray, int]:
    """Return an image (nz, ny, nx) in at most `length` points, and over how many each way it was averaged."""
    image = np.asarray(image, dtype=np.float32)
    binning = 1
    while np.prod([max(n // binning, 1) for n in image.shape]) > length:
        binning += 1
    if binning > 1:
        blocks = [(max(n // binning, 1), min(n, binning)) for n in image.shape]
        whole = image[tuple(slice(count * size) for count, size in blocks)]
        image = whole.reshape([n for block in blocks for n in block]).mean(axis=tuple(range(1, 2 * len(blocks), 2)))
    return np.ascontiguousarray(image), binning


def _status(severity: Severity) -> AlarmStatus:
    return {"NO_ALARM": AlarmStatus.NO_ALARM, "INVALID": AlarmStatus.TIMEOUT}.get(severity, AlarmStatus.STATE)
