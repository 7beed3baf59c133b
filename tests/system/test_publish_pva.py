"""The PV table on pvAccess: NTNDArrays that say what they are, scalars with alarms, checked controls."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from p4p.client.thread import Context, RemoteError
from servers import free_ports, wait_for

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
from bluesky_jit.publish.pva import PVAServer, attributes
from bluesky_jit.settings import Settings
from bluesky_jit.tomo.geometry import ParallelGeometry
from bluesky_jit.tomo.grid import Grid

pytestmark = pytest.mark.system

PREFIX = "JPVA:"
OPENED = RunOpened(
    start=RunStart(run_uid="r", scan_id=1, plan_name="tomo_scan", time_s=0.0, tomo={}),
    geometry=ParallelGeometry(n_u=80, n_v=64, pixel_mm=0.1),
    settings={},
)


class Served:
    """A server, what clients sent to it, and a client of it alone."""

    def __init__(self, **epics: Any) -> None:
        self.controls: list[Control] = []
        settings = Settings().changed({"epics": {"prefix": PREFIX, "pva_port": free_ports(1)[0]} | epics})
        self.refusal = ""
        self.server = PVAServer(settings, self.control)
        self.client = Context("pva", conf=self.server.client_conf(), useenv=False)

    def control(self, control: Control) -> None:
        if self.refusal:
            raise ValueError(self.refusal)
        self.controls.append(control)

    def publish(self, *messages: SinkMessage) -> None:
        for message in messages:
            self.server.publish(message)

    def get(self, name: str) -> Any:
        return self.client.get(PREFIX + name, timeout=10)

    def put(self, name: str, value: Any) -> None:
        self.client.put(PREFIX + name, value, timeout=10)

    def close(self) -> None:
        self.client.close()
        self.server.close()


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.close()


def update(number: int, kind: ImageKind = "raw", grid: Grid | None = None, run_uid: str = "r") -> Update:
    grid = grid or Grid.slice_xy(z_mm=0.25, voxel_mm=0.1, shape=(6, 8))
    return Update(
        run_uid=run_uid,
        number=number,
        slice_name="XY",
        kind=kind,
        grid=grid,
        image=np.arange(np.prod(grid.shape), dtype=np.float32).reshape(grid.shape) + number,
        angles=AnglesUsed(count=150, first_id=3, last_id=152, arc_rad=6.28, source="same stream"),
        turn=2,
        flats="this run",
        frame_time_s=1700000000.25,
        made_time_s=1700000000.5,
        axis_offset_mm=0.125,
        preset="unet-fast",
        weights_step=40,
        accuracy=0.55,
        ready=True,
    )


def status(**values: Any) -> SessionStatus:
    learning = Learning(ready=True, reason="better than the raw slice")
    return SessionStatus(**{"time_s": time.time(), "state": "running", "run_uid": "r", "learning": learning} | values)


def test_every_pv_of_the_table_is_served_and_no_other(served):
    assert set(served.server.names) == set(table.pva_names(PREFIX))
    for name in table.pva_names(PREFIX):
        assert served.client.get(name, timeout=10) is not None


def test_an_image_carries_its_number_both_times_and_its_provenance(served):
    served.publish(update(5, "denoised"))
    image = served.get("XY:Denoised:Image")
    assert (image.shape, image.dtype, image[0, 0], image[-1, -1]) == ((6, 8), np.float32, 5.0, 52.0)
    assert image.raw.uniqueId == 5
    assert image.timestamp == pytest.approx(1700000000.5)
    frame_time = image.raw.dataTimeStamp
    assert frame_time.secondsPastEpoch + frame_time.nanoseconds * 1e-9 == pytest.approx(1700000000.25)
    assert image.severity == 0
    found = image.attrib
    assert (found["RunUid"], found["Kind"], found["WeightsStep"], found["Turn"]) == ("r", "denoised", 40, 2)
    assert (found["Accuracy"], found["LatencyMs"], found["Preset"]) == (0.55, pytest.approx(250.0), "unet-fast")
    assert found["AxisOffsetMm"] == 0.125
    grid = json.loads(found["Grid"])
    assert (grid["x_step"], grid["shape"]) == ([0.1, 0.0, 0.0], [1, 6, 8])
    assert json.loads(found["AnglesUsed"])["last_id"] == 152


def test_the_attributes_are_those_of_the_table():
    assert tuple(attributes(update(1))) == tuple(name for name, _ in table.IMAGE_ATTRIBUTES)


def test_raw_and_denoised_are_paired_by_update_number(served):
    for number in range(1, 4):
        served.publish(update(number), update(number, "denoised"))
    raw, denoised = served.get("XY:Raw:Image"), served.get("XY:Denoised:Image")
    assert raw.raw.uniqueId == denoised.raw.uniqueId == 3
    assert raw.attrib["Update"] == denoised.attrib["Update"] == 3


def test_a_monitor_gets_each_image_as_a_new_one(served):
    seen: list[int] = []
    with served.client.monitor(f"{PREFIX}XY:Raw:Image", lambda image: seen.append(image.raw.uniqueId)):
        wait_for(lambda: seen == [0])
        for number in range(1, 4):
            served.publish(update(number))
            wait_for(lambda number=number: seen[-1] == number)
    assert seen == [0, 1, 2, 3]


def test_the_preview_is_a_volume(served):
    served.publish(update(1, "preview", Grid.volume(voxel_mm=0.5, shape=(4, 5, 6))))
    assert served.get("Preview:Image").shape == (4, 5, 6)


def test_before_the_first_update_an_image_is_empty_and_invalid(served):
    image = served.get("XZ:Raw:Image")
    assert (image.size, image.severity) == (0, 3)


def test_scalars_show_the_status_with_units(served):
    served.publish(OPENED, status(update=12, latency_ms=4.5, message="höher", learning=Learning(step=9, ready=True)))
    assert (served.get("UpdateNumber"), served.get("Learning:Step"), served.get("RunUid")) == (12, 9, "r")
    assert (bool(served.get("Learning:Ready")), served.get("Message")) == (True, "höher")
    latency = served.get("Latency")
    assert (latency, latency.raw.display.units, latency.raw.display.precision) == (4.5, "ms", 1)


def test_a_control_reaches_the_session_and_shows_what_was_set(served):
    served.publish(OPENED)
    served.put("XY:Position", 2.5)
    served.put("Learning:Pause", True)
    served.put("Learning:Reset", 1)
    assert served.controls == [
        Control(name="XY:Position", value=2.5),
        Control(name="Learning:Pause", value=True),
        Control(name="Learning:Reset", value=True),
    ]
    assert served.get("XY:Position") == 2.5
    assert (bool(served.get("Learning:Pause")), bool(served.get("Learning:Reset"))) == (True, False)


def test_a_put_outside_the_limits_is_refused_with_a_message(served):
    served.publish(OPENED)
    control = served.get("XY:Position").raw.control
    assert (control.limitLow, control.limitHigh) == pytest.approx((-3.2, 3.2))
    with pytest.raises(RemoteError, match=r"outside -3.2 to 3.2"):
        served.put("XY:Position", 25.0)
    assert served.controls == []
    assert served.get("XY:Position") == 0.0
    message = served.get("Message")
    assert ("outside" in message, message.severity) == (True, 1)


@pytest.mark.parametrize(("name", "value"), [("RunUid", "x"), ("UpdateNumber", 3)])
def test_read_only_pvs_refuse_writes(served, name, value):
    with pytest.raises(RemoteError):
        served.put(name, value)


def test_controls_can_be_switched_off():
    served = Served(controls=False)
    try:
        with pytest.raises(RemoteError):
            served.put("XY:Position", 1.0)
        assert served.controls == []
    finally:
        served.close()


def test_the_position_follows_the_slice(served):
    served.publish(update(1))
    assert served.get("XY:Position") == 0.25


def test_what_the_session_refuses_is_refused_to_the_client(served):
    served.refusal = "AxisOffset was given 0.5 mm, but there is no run yet whose axis could be moved"
    with pytest.raises(RemoteError, match="no run yet"):
        served.put("AxisOffset", 0.5)
    served.publish(status())
    assert served.get("AxisOffset") == 0.0
    assert "no run yet" in served.get("Message")


def test_a_control_goes_back_to_the_truth_when_a_put_changed_nothing(served):
    served.publish(status(), update(1))
    served.put("AxisOffset", 0.5)
    served.put("XY:Position", 1.5)
    assert (served.get("AxisOffset"), served.get("XY:Position")) == (0.5, 1.5)
    served.publish(status(), update(2))
    assert (served.get("AxisOffset"), served.get("XY:Position")) == (0.0, 0.25)


def test_images_of_the_run_before_are_invalid_until_this_run_has_its_own(served):
    names = ("XY:Raw", "XY:Denoised", "Residual", "Analysis", "Preview")
    kinds: tuple[ImageKind, ...] = ("raw", "denoised", "residual", "analysis", "preview")
    served.publish(status(), *(update(1, kind) for kind in kinds))
    assert [served.get(f"{name}:Image").severity for name in names] == [0] * 5
    served.publish(replace(OPENED, start=replace(OPENED.start, run_uid="s")))
    for name in names:
        image = served.get(f"{name}:Image")
        assert (image.severity, image.raw.alarm.message) == (3, "no image of this run yet")
        assert (image.raw.uniqueId, image.shape) == (1, (6, 8))
    served.publish(status(run_uid="s"), update(2), update(3, "denoised", run_uid="s"))
    assert [served.get(f"{name}:Image").severity for name in names] == [3, 0, 3, 3, 3]


def test_a_run_that_is_never_reconstructed_shows_no_image_of_another(served):
    served.publish(status(), update(1))
    served.publish(status(run_uid="s"))
    assert served.get("XY:Raw:Image").severity == 3


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("denoised", "XY:Denoised"),
        ("residual", "Residual"),
        ("doubt", "Doubt"),
        ("analysis", "Analysis"),
        ("segmentation", "Segmentation"),
    ],
)
def test_what_comes_of_a_denoiser_that_is_not_ready_is_invalid_and_says_why(served, kind, name):
    served.publish(status(), update(1), update(1, kind))
    served.publish(status(learning=Learning(ready=False, reason="learning was started afresh")))
    image = served.get(f"{name}:Image")
    assert (image.severity, image.raw.alarm.message) == (3, "learning was started afresh")
    assert served.get("XY:Raw:Image").severity == 0
    served.publish(status())
    assert served.get(f"{name}:Image").severity == 3
    served.publish(update(2, kind))
    assert served.get(f"{name}:Image").severity == 0


def test_stale_values_carry_an_alarm(served):
    served.publish(status(update=3), update(3))
    assert served.get("XY:Raw:Image").severity == 0
    served.publish(status(update=3, state="stale"))
    image, number = served.get("XY:Raw:Image"), served.get("UpdateNumber")
    assert (image.severity, image.raw.uniqueId, image.shape) == (1, 3, (6, 8))
    assert (number, number.severity) == (3, 1)


def test_a_session_that_falls_silent_is_a_major_alarm(served, monkeypatch):
    monkeypatch.setattr(table, "SILENCE_S", 0.2)
    served.publish(status(update=3))
    wait_for(lambda: not served.get("ServerRunning"))
    assert served.get("ServerRunning").severity == 2
    assert "start it again" in served.get("Message")
    monkeypatch.setattr(table, "SILENCE_S", 60.0)
    served.publish(status(update=4))
    assert served.get("ServerRunning")


def test_two_servers_live_side_by_side(served):
    other = Served(prefix=PREFIX)
    try:
        served.publish(status(update=1))
        other.publish(status(update=2))
        assert (served.get("UpdateNumber"), other.get("UpdateNumber")) == (1, 2)
    finally:
        other.close()
