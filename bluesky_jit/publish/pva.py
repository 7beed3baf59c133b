"""Serve the PV table on pvAccess, with images as NTNDArray."""

from __future__ import annotations

import ipaddress
import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from p4p import Value
from p4p.nt import NTNDArray, NTScalar
from p4p.server import Server
from p4p.server.thread import Handler, SharedPV

from bluesky_jit.messages import Control, RunOpened, SessionStatus, Severity, SinkMessage, Update
from bluesky_jit.publish import table
from bluesky_jit.publish.image_alarms import NO_IMAGE, ImageAlarm, ImageAlarms
from bluesky_jit.publish.on_show import OnShow
from bluesky_jit.settings import Settings
from bluesky_jit.settings_sections import EpicsSettings

logger = logging.getLogger(__name__)

SEVERITIES: tuple[Severity, ...] = ("NO_ALARM", "MINOR", "MAJOR", "INVALID")
GOOD = ImageAlarm("NO_ALARM", "")
TYPE_CODES = {"float": "d", "int": "l", "bool": "?", "str": "s", "text": "s"}


class PVAServer:
    """Show what the session publishes as PVA PVs and hand puts to `submit`."""

    def __init__(self, settings: Settings, submit: Callable[[Control], None]) -> None:
        self._submit = submit
        self._lock = threading.Lock()
        self._posted: dict[str, table.Reading | None] = {}
        self._alarms = ImageAlarms()
        self._on_show = OnShow()
        self._opened: RunOpened | None = None
        self._status = SessionStatus(time_s=time.time())
        self._heard_s = time.monotonic()
        self._silent = False
        epics = settings.epics
        self._images = {line.name: _image_pv() for line in table.rows("image")}
        self._scalars = {
            line.name: _scalar_pv(line, _Puts(line, self._accept) if line.writable and epics.controls else None)
            for line in table.rows("scalar", "control")
        }
        provider = {f"{epics.prefix}{name}:{table.PVA_IMAGE}": pv for name, pv in self._images.items()}
        provider |= {epics.prefix + name: pv for name, pv in self._scalars.items()}
        self.names = tuple(provider)
        self._post_status(self._status)
        self._server = Server(providers=[provider], conf=server_conf(epics), useenv=False)
        self.port = int(self._server.conf()["EPICS_PVAS_SERVER_PORT"])
        if self.port != epics.pva_port:
            logger.warning("PVA port %d is taken: PVs are on port %d; set epics.pva_port", epics.pva_port, self.port)
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="pva-watch", daemon=True)
        self._watcher.start()

    def client_conf(self) -> dict[str, str]:
        """Return the configuration of a p4p client Context that finds this server and no other."""
        return self._server.conf()

    def publish(self, message: SinkMessage) -> None:
        """Post a message at once."""
        with self._lock:
            if not self._on_show.takes(message):
                return
            try:
                self._post(message)
            except Exception:
                logger.exception("a %s could not be posted on PVA", type(message).__name__)

    def close(self) -> None:
        """Stop serving; clients see a disconnect."""
        self._closing.set()
        self._watcher.join()
        self._server.stop()
        for pv in (*self._images.values(), *self._scalars.values()):
            pv.close(destroy=True)

    def _watch(self) -> None:
        while not self._closing.wait(table.SILENCE_S / 5):
            with self._lock:
                if not self._silent and time.monotonic() - self._heard_s > table.SILENCE_S:
                    self._silent = True
                    self._post_status(table.silent(self._status, time.time()))

    def _post(self, message: SinkMessage) -> None:
        alarms = self._alarms.take(message)
        if not isinstance(message, Update):
            for name, alarm in alarms.items():
                self._images[name].post(alarm)
        match message:
            case RunOpened():
                # What was refused is told until the next run, as the session's own messages are.
                self._posted.pop("Message", None)
                self._post_limits()
            case SessionStatus():
                self._heard_s, self._silent, self._status = time.monotonic(), False, message
                self._post_limits()
                self._post_status(message)
            case Update():
                name = table.image_name(message)
                self._images[name].post(message, alarm=self._alarms.of(name))
                if moved := table.position(message):
                    self._show(*moved, message.made_time_s)

    def _post_limits(self) -> None:
        """Post what the run on show lets controls be, if it is another one than before."""
        opened = self._on_show.opened
        if opened is self._opened:
            return
        self._opened = opened
        for line in table.rows("control"):
            span = table.limits(line, self._opened)
            if span is not None:
                ends = {"limitLow": span[0], "limitHigh": span[1]}
                self._scalars[line.name].post({"display": ends, "control": ends})

    def _post_status(self, status: SessionStatus) -> None:
        for line in table.rows("scalar", "control"):
            reading = table.reading(line, status, self._opened)
            if reading is not None:
                self._show(line, reading, status.time_s, status.state)

    def _show(self, line: table.Row, reading: table.Reading, time_s: float, why: str = "") -> None:
        # The heartbeat is renewed every time; for the rest no news is no traffic (repr, because NaN is not NaN).
        if line.rule == "running" or repr(reading) != repr(self._posted.get(line.name)):
            self._posted[line.name] = reading
            self._write(line, reading, time_s, why)

    def _write(self, line: table.Row, reading: table.Reading, time_s: float, why: str = "") -> None:
        message = why if reading.severity != "NO_ALARM" else ""
        alarm = {"severity": SEVERITIES.index(reading.severity), "status": 3 if message else 0, "message": message}
        self._scalars[line.name].post({"value": reading.value, "alarm": alarm}, timestamp=time_s)

    def _accept(self, line: table.Row, value: Any) -> None:
        """Check a client's put, hand it to the session and show it."""
        with self._lock:
            now_s = time.time()
            # Whatever becomes of the put, the next status or image shows what is true.
            self._posted.pop(line.name, None)
            try:
                value = table.checked(line, value, self._opened)
                self._submit(Control(name=line.name, value=value))
            except ValueError as error:
                # The next status is no news, so that the refusal stays to be read.
                self._posted["Message"] = table.reading(table.row("Message"), self._status)
                self._write(table.row("Message"), table.Reading(str(error), "MINOR"), now_s, "put refused")
                raise
            self._write(line, table.Reading(type(value)() if line.momentary else value, "NO_ALARM"), now_s)


class UpdateArray(NTNDArray):
    """Wrap an Update as an NTNDArray that says what it is: number, both times, grid and provenance.

    p4p's own wrapper sends uniqueId 0 and time 0 for ever, which viewers take for one frame that never changes.
    """

    def wrap(self, value: Update | ImageAlarm | None, alarm: ImageAlarm = GOOD, **kws: Any) -> Value:
        """Return an update, a change of alarm alone, or (None) what is shown before the first update."""
        if isinstance(value, Update):
            return self._wrap_update(value, alarm)
        if value is None:
            empty = super().wrap(np.zeros((0, 0), dtype=np.float32))
            empty["alarm"] = _alarm("INVALID", NO_IMAGE)
            return empty
        return Value(self.type, {"alarm": _alarm(*value)})

    def _wrap_update(self, update: Update, alarm: ImageAlarm) -> Value:
        image = np.asarray(update.image, dtype=np.float32)
        if image.ndim == 3 and image.shape[0] == 1:
            image = image[0]
        array = super().wrap(image, attrib={"ColorMode": 0, **attributes(update)})
        array["uniqueId"] = update.number
        array["timeStamp"] = _stamp(update.made_time_s)
        array["dataTimeStamp"] = _stamp(update.frame_time_s)
        array["alarm"] = _alarm(*alarm)
        return array


def _alarm(severity: Severity, message: str) -> dict[str, Any]:
    undefined, record = 6, 3
    status = {"NO_ALARM": 0, "INVALID": undefined}.get(severity, record)
    return {"severity": SEVERITIES.index(severity), "status": status, "message": message}


def attributes(update: Update) -> dict[str, Any]:
    """Return the attributes of an image; see table.IMAGE_ATTRIBUTES."""
    return {
        "RunUid": update.run_uid,
        "Update": update.number,
        "Slice": update.slice_name,
        "Kind": update.kind,
        "Grid": json.dumps(update.grid.to_metadata()),
        "AnglesUsed": json.dumps(asdict(update.angles)),
        "Turn": update.turn,
        "WeightsStep": update.weights_step,
        "Preset": update.preset,
        "Accuracy": float(update.accuracy),
        "Ready": update.ready,
        "LatencyMs": float(update.latency_ms),
        "Flats": update.flats,
        "AxisOffsetMm": float(update.axis_offset_mm),
    }


def server_conf(epics: EpicsSettings) -> dict[str, str]:
    """Return the p4p configuration of a server that listens where the settings say, and nowhere else."""
    conf = {
        "EPICS_PVAS_INTF_ADDR_LIST": epics.interface,
        "EPICS_PVAS_SERVER_PORT": str(epics.pva_port),
        # As with EPICS' own 5075 and 5076: searches arrive next to the server's port.
        "EPICS_PVAS_BROADCAST_PORT": str(epics.pva_port + 1),
    }
    if ipaddress.ip_address(epics.interface).is_loopback:
        conf |= {"EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO", "EPICS_PVAS_BEACON_ADDR_LIST": epics.interface}
    return conf


class _Puts(Handler):
    """Pass the puts on one control to the server and tell the client what became of them."""

    def __init__(self, line: table.Row, accept: Callable[[table.Row, Any], None]) -> None:
        self._line = line
        self._accept = accept

    def put(self, pv: Any, op: Any) -> None:
        try:
            self._accept(self._line, op.value())
        except ValueError as error:
            op.done(error=str(error))
        else:
            op.done()


def _stamp(time_s: float) -> dict[str, int]:
    seconds, rest = divmod(time_s, 1.0)
    return {"secondsPastEpoch": int(seconds), "nanoseconds": int(rest * 1e9)}


def _image_pv() -> SharedPV:
    array = UpdateArray()
    pv = SharedPV(nt=array)
    pv.open(None)
    return pv


def _scalar_pv(line: table.Row, handler: Handler | None) -> SharedPV:
    numeric = line.type in ("float", "int")
    nt = NTScalar(TYPE_CODES[line.type], display=True, control=line.limits is not None, form=numeric)
    display: dict[str, Any] = {"description": line.help, "units": line.units}
    first: dict[str, Any] = {"value": "" if TYPE_CODES[line.type] == "s" else 0, "display": display}
    if line.type == "float":
        display["precision"] = line.precision
    if line.limits is not None:
        ends = {"limitLow": line.limits[0], "limitHigh": line.limits[1]}
        display |= ends
        first["control"] = ends
    return SharedPV(handler=handler, nt=nt, initial=first, timestamp=time.time())
