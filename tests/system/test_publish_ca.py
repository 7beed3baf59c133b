"""The PV table on Channel Access, read and written by the clients that beamlines have."""

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import caproto
import numpy as np
import pytest
from caproto.sync import client as ca
from servers import JIT_CA_PORT, wait_for

from bluesky_jit.messages import (
    AnglesUsed,
    Control,
    ImageKind,
    Learning,
    RunOpened,
    RunStart,
    SessionStatus,
    SinkMessage,
    Update,
)
from bluesky_jit.publish import table
from bluesky_jit.publish.ca import CAServer, fitted
from bluesky_jit.settings import Settings
from bluesky_jit.tomo.geometry import ConeGeometry
from bluesky_jit.tomo.grid import Grid

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("ca_repeater")]

PREFIX = "JCA:"
SETTINGS = Settings().changed({"epics": {"prefix": PREFIX, "ca_port": JIT_CA_PORT}})
OPENED = RunOpened(
    start=RunStart(run_uid="r", scan_id=1, plan_name="tomo_scan", time_s=0.0, tomo={}),
    geometry=ConeGeometry(n_u=80, n_v=64, pixel_mm=0.2, source_axis_mm=100, source_detector_mm=200),
    settings={},
)


class Served:
    """A server with what clients sent to it."""

    def __init__(self, settings: Settings) -> None:
        self.controls: list[Control] = []
        self.refusal = ""
        self.server = CAServer(settings, self.control)

    def control(self, control: Control) -> None:
        if self.refusal:
            raise ValueError(self.refusal)
        self.controls.append(control)

    def publish(self, *messages: SinkMessage) -> None:
        for message in messages:
            self.server.publish(message)


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served(SETTINGS)
    yield served
    served.server.close()


def update(
    number: int, kind: ImageKind = "raw", *, shape: tuple[int, int] = (6, 8), z_mm: float = 0.0, run_uid: str = "r"
) -> Update:
    grid = Grid.slice_xy(z_mm=z_mm, voxel_mm=0.1, shape=shape)
    return Update(
        run_uid=run_uid,
        number=number,
        slice_name="XY",
        kind=kind,
        grid=grid,
        image=np.arange(math.prod(shape), dtype=np.float32).reshape(grid.shape) + number,
        angles=AnglesUsed(count=150, first_id=0, last_id=149, arc_rad=6.28, source="same stream"),
        turn=0,
        flats="this run",
        frame_time_s=1700000000.25,
        made_time_s=1700000000.5,
    )


def status(**values: Any) -> SessionStatus:
    learning = Learning(ready=True, reason="better than the raw slice")
    return SessionStatus(**{"time_s": time.time(), "state": "running", "run_uid": "r", "learning": learning} | values)


def read(name: str, **options: Any) -> Any:
    return ca.read(PREFIX + name, repeater=False, timeout=5, **options)


def value(name: str) -> Any:
    data = read(name).data
    return data[0].decode() if isinstance(data[0], bytes) else data[0]


def text(name: str) -> str:
    return bytes(bytearray(read(name).data)).decode("latin-1")


def severity(name: str) -> int:
    return read(name, data_type="time").metadata.severity


def write(name: str, new: Any) -> None:
    ca.write(PREFIX + name, new, notify=True, repeater=False, timeout=5)


def test_every_pv_of_the_table_is_served_and_no_other(served):
    assert set(served.server.names) == set(table.ca_names(PREFIX))
    for name in ("Preview:ArrayData", "Learning:Accuracy", "AxisOffset"):
        assert read(name).status.success


def test_scalars_show_the_status_with_units(served):
    served.publish(OPENED, status(update=12, latency_ms=4.5, learning=Learning(step=9, reason="warming up")))
    wait_for(lambda: value("UpdateNumber") == 12)
    assert (value("ServerRunning"), value("ReconStatus"), value("RunUid")) == ("Yes", "running", "r")
    assert (value("Learning:Step"), text("Learning:Reason")) == (9, "warming up")
    latency = read("Latency", data_type="control")
    assert (latency.data[0], latency.metadata.units) == (4.5, b"ms")
    assert value("Center") == pytest.approx(39.5)


def test_raw_and_denoised_are_paired_by_update_number(served):
    for number in range(1, 4):
        served.publish(update(number), update(number, "denoised"))
    wait_for(lambda: value("XY:Denoised:UniqueId_RBV") == 3)
    assert value("XY:Raw:UniqueId_RBV") == 3
    for kind in ("Raw", "Denoised"):
        assert read(f"XY:{kind}:ArrayData").data[0] == 3.0
        assert value(f"XY:{kind}:TimeStamp_RBV") == 1700000000.25
    stamp = read("XY:Raw:ArrayData", data_type="time").metadata.timestamp
    assert stamp == pytest.approx(1700000000.5, abs=1e-3)


def test_stock_ophyd_reads_a_denoised_slice(served):
    served.publish(update(5, "denoised"))
    wait_for(lambda: value("XY:Denoised:UniqueId_RBV") == 5)
    script = f"""
import json
from ophyd.areadetector.plugins import ImagePlugin
plugin = ImagePlugin("{PREFIX}XY:Denoised:", name="plugin")
image = plugin.image
print(json.dumps({{
    "shape": image.shape, "first": float(image[0, 0, 0]), "last": float(image[-1, -1, -1]),
    "type": plugin.plugin_type.get(), "unique_id": int(plugin.unique_id.get()), "port": plugin.port_name.get(),
}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "shape": [1, 6, 8],
        "first": 5.0,
        "last": 52.0,
        "type": "NDPluginStdArrays",
        "unique_id": 5,
        "port": "XY:Denoised",
    }


def test_the_layout_is_that_of_an_areadetector_float_image(served):
    served.publish(update(5))
    wait_for(lambda: value("XY:Raw:UniqueId_RBV") == 5)
    found = {name: value(f"XY:Raw:{name}_RBV") for name in ("DataType", "ColorMode", "NDimensions", "Binning")}
    assert found == {"DataType": "Float32", "ColorMode": "Mono", "NDimensions": 3, "Binning": 1}
    assert read("XY:Raw:DataType_RBV", data_type="native").data[0] == 8
    assert [value(f"XY:Raw:ArraySize{axis}_RBV") for axis in range(3)] == [8, 6, 1]


def test_an_image_larger_than_its_waveform_is_averaged_over_blocks(served):
    served.publish(update(1, shape=(700, 800)))
    wait_for(lambda: value("XY:Raw:UniqueId_RBV") == 1)
    assert (value("XY:Raw:Binning_RBV"), value("XY:Raw:ArraySize0_RBV"), value("XY:Raw:ArraySize1_RBV")) == (
        2,
        400,
        350,
    )
    assert len(read("XY:Raw:ArrayData").data) == 400 * 350


@pytest.mark.parametrize(
    ("shape", "length", "expected", "binning"),
    [
        ((1, 4, 6), 24, (1, 4, 6), 1),
        ((1, 5, 7), 10, (1, 2, 3), 2),
        ((4, 4, 4), 8, (2, 2, 2), 2),
        ((1, 1, 90), 9, (1, 1, 9), 10),
    ],
)
def test_fitting_keeps_whole_blocks_and_their_mean(shape, length, expected, binning):
    image, found = fitted(np.ones(shape), length)
    assert (image.shape, found) == (expected, binning)
    assert np.all(image == 1.0)


def test_the_latest_of_many_updates_is_what_remains(served):
    for number in range(500):
        served.publish(update(number))
    wait_for(lambda: value("XY:Raw:UniqueId_RBV") == 499)
    assert value("XY:Raw:ArrayCounter_RBV") <= 500


def test_a_monitor_gets_new_images(served):
    seen: list[float] = []
    subscription = ca.subscribe(f"{PREFIX}XY:Raw:ArrayData")

    def note(subscription: Any, response: Any) -> None:
        seen.append(float(response.data[0]))
        if seen[-1] == 7.0:
            ca.interrupt()

    subscription.add_callback(note)
    blocker = threading.Thread(target=lambda: ca.block(subscription, duration=20, repeater=False))
    blocker.start()
    wait_for(lambda: seen == [0.0], what="the image before the first update")
    served.publish(update(7))
    blocker.join(20)
    assert seen[-1] == 7.0


def test_a_control_reaches_the_session_and_shows_what_was_set(served):
    served.publish(OPENED)
    write("XY:Position", 2.5)
    write("Learning:Pause", 1)
    assert served.controls == [Control(name="XY:Position", value=2.5), Control(name="Learning:Pause", value=True)]
    assert (value("XY:Position"), value("Learning:Pause")) == (2.5, "Yes")


def test_a_momentary_control_falls_back(served):
    write("Learning:Reset", 1)
    assert served.controls == [Control(name="Learning:Reset", value=True)]
    assert value("Learning:Reset") == "No"


def test_a_put_outside_the_limits_is_refused_with_an_alarm_and_a_message(served):
    served.publish(OPENED)
    wait_for(lambda: read("XY:Position", data_type="control").metadata.upper_ctrl_limit == pytest.approx(3.2))
    with pytest.raises(caproto.ErrorResponseReceived):
        write("XY:Position", 25.0)
    assert served.controls == []
    assert value("XY:Position") == 0.0
    assert severity("XY:Position") == caproto.AlarmSeverity.MAJOR_ALARM
    assert "outside -3.2 to 3.2" in text("Message")
    assert severity("Message") == caproto.AlarmSeverity.MINOR_ALARM
    served.publish(status(update=1))
    wait_for(lambda: value("UpdateNumber") == 1)
    assert "outside -3.2 to 3.2" in text("Message")
    write("XY:Position", 1.0)
    assert severity("XY:Position") == caproto.AlarmSeverity.NO_ALARM


def test_read_only_pvs_refuse_writes(served):
    for name, new in (("RunUid", "x"), ("UpdateNumber", 3), ("XY:Raw:ArrayData", [1.0])):
        with pytest.raises(caproto.ErrorResponseReceived):
            write(name, new)
    assert value("UpdateNumber") == 0


def test_controls_can_be_switched_off():
    served = Served(SETTINGS.changed({"epics": {"controls": False}}))
    try:
        with pytest.raises(caproto.ErrorResponseReceived):
            write("XY:Position", 1.0)
        assert served.controls == []
    finally:
        served.server.close()


def test_the_position_follows_the_slice(served):
    served.publish(update(1, z_mm=1.25))
    wait_for(lambda: value("XY:Position") == 1.25)


def test_what_the_session_refuses_is_refused_to_the_client(served):
    served.refusal = "AxisOffset was given 0.5 mm, but there is no run yet whose axis could be moved"
    with pytest.raises(caproto.ErrorResponseReceived):
        write("AxisOffset", 0.5)
    assert value("AxisOffset") == 0.0
    assert "no run yet" in text("Message")
    served.publish(status(update=1))
    wait_for(lambda: value("UpdateNumber") == 1)
    assert (value("AxisOffset"), severity("AxisOffset")) == (0.0, caproto.AlarmSeverity.NO_ALARM)
    assert "no run yet" in text("Message")


def test_a_refused_put_is_one_line_in_the_log(served, caplog):
    served.publish(OPENED)
    wait_for(lambda: read("XY:Position", data_type="control").metadata.upper_ctrl_limit == pytest.approx(3.2))
    for name, new in (("XY:Position", 25.0), ("UpdateNumber", 3)):
        with pytest.raises(caproto.ErrorResponseReceived):
            write(name, new)
    found = [record for record in caplog.records if record.name == "caproto.circ" and record.levelname != "DEBUG"]
    assert [(record.levelname, record.exc_info) for record in found] == [("WARNING", None)] * 2
    assert "outside -3.2 to 3.2" in found[0].getMessage()
    assert "refused" in found[1].getMessage()


def test_a_control_goes_back_to_the_truth_when_a_put_changed_nothing(served):
    served.publish(status(update=1))
    wait_for(lambda: value("UpdateNumber") == 1)
    write("AxisOffset", 0.5)
    write("Learning:Pause", 1)
    assert (value("AxisOffset"), value("Learning:Pause")) == (0.5, "Yes")
    served.publish(status(update=2))
    wait_for(lambda: value("UpdateNumber") == 2)
    wait_for(lambda: (value("AxisOffset"), value("Learning:Pause")) == (0.0, "No"))


def test_images_of_the_run_before_are_invalid_until_this_run_has_its_own(served):
    served.publish(status(), update(1), update(1, "denoised"))
    wait_for(lambda: severity("XY:Denoised:ArrayData") == caproto.AlarmSeverity.NO_ALARM)
    served.publish(replace(OPENED, start=replace(OPENED.start, run_uid="s")))
    for name in ("XY:Raw:ArrayData", "XY:Raw:UniqueId_RBV", "XY:Denoised:ArrayData", "XY:Denoised:UniqueId_RBV"):
        wait_for(lambda name=name: severity(name) == caproto.AlarmSeverity.INVALID_ALARM)
    served.publish(update(2, "denoised"), update(2, run_uid="s"))
    wait_for(lambda: severity("XY:Raw:ArrayData") == caproto.AlarmSeverity.NO_ALARM)
    assert severity("XY:Raw:UniqueId_RBV") == caproto.AlarmSeverity.NO_ALARM
    assert value("XY:Denoised:UniqueId_RBV") == 1
    assert severity("XY:Denoised:ArrayData") == caproto.AlarmSeverity.INVALID_ALARM


def test_of_runs_that_go_on_at_a_time_only_the_one_on_show_is_served(served):
    other = replace(OPENED, start=replace(OPENED.start, run_uid="s"), on_show=False)
    served.publish(status(), update(1), other, update(2, run_uid="s"))
    served.publish(status(run_uid="s", on_show=False, scan_id=99), status(update=7))
    wait_for(lambda: value("UpdateNumber") == 7)
    assert (value("RunUid"), value("ScanId"), value("XY:Raw:UniqueId_RBV")) == ("r", 0, 1)
    served.publish(status(run_uid="s"), update(3, run_uid="s"))
    wait_for(lambda: (value("RunUid"), value("XY:Raw:UniqueId_RBV")) == ("s", 3))
    served.publish(status(), update(4))
    wait_for(lambda: (value("RunUid"), value("XY:Raw:UniqueId_RBV")) == ("r", 4))


def test_a_denoised_image_is_invalid_while_the_denoiser_is_not_ready(served):
    served.publish(status(), update(1), update(1, "denoised"))
    wait_for(lambda: severity("XY:Denoised:ArrayData") == caproto.AlarmSeverity.NO_ALARM)
    served.publish(status(learning=Learning(ready=False, reason="learning was started afresh")))
    wait_for(lambda: severity("XY:Denoised:ArrayData") == caproto.AlarmSeverity.INVALID_ALARM)
    assert severity("XY:Raw:ArrayData") == caproto.AlarmSeverity.NO_ALARM
    served.publish(status(update=2))
    wait_for(lambda: value("UpdateNumber") == 2)
    assert severity("XY:Denoised:ArrayData") == caproto.AlarmSeverity.INVALID_ALARM
    served.publish(update(3, "denoised"))
    wait_for(lambda: severity("XY:Denoised:ArrayData") == caproto.AlarmSeverity.NO_ALARM)


def test_stale_values_carry_an_alarm(served):
    served.publish(status(update=3), update(3))
    wait_for(lambda: value("UpdateNumber") == 3)
    assert severity("XY:Raw:ArrayData") == caproto.AlarmSeverity.NO_ALARM
    served.publish(status(update=3, state="stale"))
    wait_for(lambda: value("ReconStatus") == "stale")
    wait_for(lambda: severity("XY:Raw:ArrayData") == caproto.AlarmSeverity.MINOR_ALARM)
    assert severity("UpdateNumber") == caproto.AlarmSeverity.MINOR_ALARM
    assert value("ServerRunning") == "Yes"


def test_a_session_that_falls_silent_is_a_major_alarm(served, monkeypatch):
    monkeypatch.setattr(table, "SILENCE_S", 0.2)
    served.publish(status(update=3))
    wait_for(lambda: value("ServerRunning") == "No")
    assert severity("ServerRunning") == caproto.AlarmSeverity.MAJOR_ALARM
    wait_for(lambda: "start it again" in text("Message"))
    monkeypatch.setattr(table, "SILENCE_S", 60.0)
    served.publish(replace(status(), update=4))
    wait_for(lambda: value("ServerRunning") == "Yes")
