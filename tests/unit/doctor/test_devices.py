"""What the camera's records say, judged: missing ones, frames too large for Channel Access, clocks that differ."""

from __future__ import annotations

import pytest

from bluesky_jit.doctor.channels import Reading
from bluesky_jit.doctor.devices import array_size, camera_clock, frame_bytes, judge, search_list
from bluesky_jit.intake.frames import EPICS_EPOCH_S
from bluesky_jit.settings_sections import BeamlineSettings

NAMES = BeamlineSettings(camera="C:", stage="R", shutter="S", sample="")
NOW_S = 1_790_000_000.0
RECORDS = {
    "C:cam1:Acquire": "0",
    "C:cam1:ArraySizeX_RBV": "768",
    "C:cam1:ArraySizeY_RBV": "647",
    "C:cam1:DataType_RBV": "UInt16",
    "C:HDF1:FilePath_RBV": "/data/",
    "C:HDF1:SWMRMode_RBV": "On",
    "C:HDF1:TimeStamp_RBV": "0",
    "R": "12.5",
    "S": "Closed",
}
FRAME = 768 * 647 * 2


def readings() -> dict[str, Reading]:
    return {name: Reading(text=text, value=text, time_s=NOW_S) for name, text in RECORDS.items()}


def test_devices_that_answer_are_fine() -> None:
    found = {each.subject: each for each in judge(NAMES, readings())}
    assert {each.verdict for each in found.values()} == {"fine"}
    assert found["camera"].text == "C: answers: frames of 647×768 UInt16"
    assert found["stage"].text == "R is at 12.5"
    assert found["shutter"].text == "S is Closed"
    assert found["sample"].text == "none: beamline.sample is empty"


def test_each_device_that_does_not_answer_is_a_problem() -> None:
    found = {each.subject: each for each in judge(NAMES, {})}
    assert {subject for subject, each in found.items() if each.verdict == "problem"} == {"camera", "stage", "shutter"}
    assert "correct beamline.camera" in found["camera"].text
    assert "correct beamline.stage" in found["stage"].text


def test_a_camera_without_its_file_plugin_is_told_from_none() -> None:
    some = {name: reading for name, reading in readings().items() if "HDF1" not in name}
    camera = judge(NAMES, some)[0]
    assert camera.verdict == "problem"
    assert "C:HDF1:FilePath_RBV" in camera.text
    assert "C:cam1" not in camera.text


@pytest.mark.parametrize(
    ("environment", "verdict", "words"),
    [
        ({"EPICS_CA_MAX_ARRAY_BYTES": str(FRAME)}, "fine", "fits"),
        (
            {"EPICS_CA_MAX_ARRAY_BYTES": str(FRAME - 1)},
            "warning",
            "older EPICS do not: export EPICS_CA_MAX_ARRAY_BYTES=",
        ),
        ({}, "warning", "EPICS_CA_MAX_ARRAY_BYTES is 16384"),
        ({"EPICS_CA_AUTO_ARRAY_BYTES": "NO"}, "warning", "no frame comes through Channel Access"),
        ({"EPICS_CA_MAX_ARRAY_BYTES": "lots"}, "warning", "is lots and a frame has 993,792 bytes"),
    ],
)
def test_a_frame_is_compared_with_the_largest_array(environment: dict[str, str], verdict: str, words: str) -> None:
    [found] = array_size(NAMES, readings(), environment)
    assert (found.verdict, words in found.text) == (verdict, True), found.text


def test_a_frame_of_unknown_size_is_not_judged() -> None:
    strange = readings() | {"C:cam1:DataType_RBV": Reading(text="Kept", value=9, time_s=NOW_S)}
    assert frame_bytes(NAMES, readings()) == FRAME
    assert frame_bytes(NAMES, strange) == frame_bytes(NAMES, {}) == 0
    assert array_size(NAMES, strange, {}) == []


@pytest.mark.parametrize(
    ("stamp_s", "posted_s", "verdict", "words"),
    [
        (NOW_S - 0.05, NOW_S - 0.02, "fine", "newest frame is 0.05 s old"),
        # From 1990 on, as areaDetector counts.
        (NOW_S - EPICS_EPOCH_S - 0.05, NOW_S - 0.02, "fine", "newest frame is 0.05 s old"),
        (NOW_S - 7200, NOW_S - 7199, "fine", "last frame is 2 h old"),
        (NOW_S + 3, NOW_S + 3.1, "warning", "its IOC is 3.1 s ahead of this machine"),
        (NOW_S + 3, NOW_S, "warning", "the camera is 3.0 s ahead of this machine"),
        (NOW_S - 40, NOW_S - 1, "warning", "the camera is 39.0 s behind its own IOC"),
        (NOW_S - 7200, NOW_S - 7260, "warning", "the camera is 60.0 s ahead of its own IOC"),
        (0.0, NOW_S, "fine", "no frame yet to compare clocks by"),
    ],
)
def test_clocks_are_compared(stamp_s: float, posted_s: float, verdict: str, words: str) -> None:
    stamp = {"C:HDF1:TimeStamp_RBV": Reading(text=str(stamp_s), value=stamp_s, time_s=posted_s)}
    [found] = camera_clock(NAMES, stamp, NOW_S)
    assert (found.verdict, words in found.text) == (verdict, True), found.text
    assert ("chronyc" in found.text) == (verdict == "warning")


def test_where_pvs_are_looked_for_is_told() -> None:
    assert search_list({}) == "looked for at this machine's subnets"
    only = {"EPICS_CA_ADDR_LIST": "10.0.0.1", "EPICS_CA_AUTO_ADDR_LIST": "NO"}
    assert search_list(only) == "looked for at 10.0.0.1"
    assert search_list({"EPICS_CA_AUTO_ADDR_LIST": "NO"}) == "looked for at no address at all"
