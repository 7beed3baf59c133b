"""What goes wrong at a beamline: each gives one clear message, the raw run is never harmed, and the next run works."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from failing_beamline import ANGLES, SHORT, SOON_S, Beamline, Console
from servers import LOOPBACK, wait_for

from bluesky_jit.cli.simulated import SimulatedBeamline
from bluesky_jit.cli.watch import Watch

# Longer than all that one test may wait for on a busy machine, so that it is the condition that is named.
pytestmark = [pytest.mark.system, pytest.mark.usefixtures("ca_repeater"), pytest.mark.timeout(600)]

LONG = {**SHORT, "turns": 40}
WITHOUT_LEARNING = {"learn": {"enabled": False}}
"""It has failures of its own, and takes a core."""


@pytest.fixture(scope="module")
def beamline(ca_repeater: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beamline]:
    folder = tmp_path_factory.mktemp("failures")
    small = ("--rows", "32", "--columns", "40")
    with (
        SimulatedBeamline(folder, ioc_options=small, parts=("ioc",), settings=WITHOUT_LEARNING) as simulated,
        pytest.MonkeyPatch.context() as patch,
    ):
        settings = simulated.settings
        patch.setenv("EPICS_CA_ADDR_LIST", f"{LOOPBACK}:{settings.beamline.ca_port}")
        serve, console = simulated.serve(), Console(simulated.settings_file)
        try:
            serve.wait_until_ready(SOON_S)
            console.wait_until_ready()
            with Watch(settings) as watch:
                beamline = Beamline(simulated, console, watch)
                yield beamline
                console = beamline.console
        finally:
            console.close()


@pytest.fixture(autouse=True)
def fresh_after_a_failure(beamline: Beamline, request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that fails must not make the next ones fail."""
    before = request.session.testsfailed
    yield
    if request.session.testsfailed > before:
        beamline.restart()


def test_an_aborted_scan_is_told_and_the_stage_stops(beamline: Beamline) -> None:
    beamline.start(**LONG)
    ended = beamline.console.press_ctrl_c()
    assert ended["status"] in ("abort", "fail")
    message = beamline.wait_until_finished(ended["uid"])
    assert f"run {ended['uid'][:8]} ended as {ended['status']!r} after " in message
    wait_for(lambda: beamline.read("ROT.DMOV") == 1, timeout_s=SOON_S, what="the stage at rest")
    wait_for(lambda: beamline.read("DET:cam1:Acquire") in (0, b"Done"), timeout_s=SOON_S, what="an idle camera")
    beamline.check_that_the_next_run_works()


def test_an_ioc_that_ends_in_mid_scan_fails_the_scan_clearly(beamline: Beamline) -> None:
    beamline.start(**LONG)
    beamline.simulated.child("ioc").kill()
    try:
        ended = beamline.console.answer()
    finally:
        beamline.simulated.ioc().wait_until_ready(SOON_S)
    assert ended["status"] == "fail"
    assert "no answer from camera" in ended["error"]
    assert "start their IOC again" in ended["error"]
    message = beamline.wait_until_finished(ended["uid"])
    assert f"run {ended['uid'][:8]} ended as 'fail' after " in message
    assert "no answer from camera" in message
    # What came before is shown all the same.
    beamline.wait_until_shown(ended["uid"])
    beamline.check_that_the_next_run_works()


def test_a_scan_without_flats_is_shown_with_those_of_the_scan_before_and_that_is_told(beamline: Beamline) -> None:
    beamline.check_that_the_next_run_works()
    lender = beamline.value("RunUid")
    ended = beamline.console.scan(**{**SHORT, "flats": 0})
    assert ended["status"] == "success"
    message = beamline.wait_until_finished(ended["uid"])
    assert f"run {ended['uid'][:8]} has no flats yet: those of run {lender} (borrowed)" in message
    beamline.wait_until_shown(ended["uid"])
    attributes = beamline.watch.image("XY:Raw")[1]
    assert (attributes["RunUid"], attributes["Flats"]) == (ended["uid"], f"run {lender} (borrowed)")
    beamline.check_that_the_next_run_works()


def test_frames_that_the_detector_loses_repeats_or_confuses_are_counted_and_named(beamline: Beamline) -> None:
    beamline.start(**{**SHORT, "turns": 8})
    # One after the other, so that a frame has one fault. In the end as many rows are in the file as were to come.
    for fault, frames in (("Duplicate", 5), ("Reorder", 2), ("Drop", 5)):
        beamline.write(f"FAULT:{fault}", frames)
        wait_for(lambda name=f"FAULT:{fault}": beamline.read(name) == 0, timeout_s=SOON_S, what=f"{fault} done")
    ended = beamline.console.answer()
    assert ended["status"] == "success"
    message = beamline.wait_until_finished(ended["uid"])
    assert beamline.value("FramesLost") == 5
    assert beamline.value("Projections") == 8 * ANGLES - 5
    assert message.startswith("frames ")
    assert "did not come from the detector" in message
    beamline.wait_until_shown(ended["uid"])
    beamline.check_that_the_next_run_works()


def test_a_scan_inside_another_run_is_reconstructed(beamline: Beamline) -> None:
    ended = beamline.console.scan(**SHORT, inside="adaptive")
    assert (ended["status"], ended["error"]) == ("success", "")
    assert beamline.wait_until_finished(ended["uid"]) == ""
    assert (beamline.value("Projections"), beamline.value("FramesLost")) == (2 * ANGLES, 0)


def test_a_session_that_is_stopped_while_a_scan_goes_on_misses_nothing(beamline: Beamline) -> None:
    beamline.start(**{**SHORT, "turns": 6})
    with beamline.stopped("serve"):
        ended = beamline.console.answer()
    assert (ended["status"], ended["error"]) == ("success", "")
    beamline.wait_until_finished(ended["uid"])
    assert (beamline.value("Projections"), beamline.value("FramesLost")) == (6 * ANGLES, 0)
    beamline.check_that_the_next_run_works()


def test_a_file_that_is_cut_off_in_mid_scan_costs_no_more_than_it_lost(beamline: Beamline) -> None:
    beamline.start(**{**SHORT, "turns": 6})
    path = max(beamline.simulated.frames.glob("**/*primary*.h5"), key=lambda path: path.stat().st_mtime_ns)
    os.truncate(path, path.stat().st_size // 2)
    ended = beamline.console.answer()
    assert ended["status"] == "success"
    beamline.wait_until_finished(ended["uid"])
    # Those of the first turn had been used, and by pvAccess the others come as well.
    assert beamline.value("Projections") >= ANGLES
    assert beamline.value("Projections") + beamline.value("FramesLost") == 6 * ANGLES
    beamline.check_that_the_next_run_works()


def test_a_full_disk_ends_the_scan_clearly(beamline: Beamline) -> None:
    beamline.start(**LONG)
    with beamline.full_disk("ioc"):
        ended = beamline.console.answer()
    assert ended["status"] == "fail"
    assert "camera cannot write its file, after " in ended["error"]
    assert "free some space on its disk" in ended["error"]
    message = beamline.wait_until_finished(ended["uid"])
    assert f"run {ended['uid'][:8]} ended as 'fail' after " in message
    beamline.check_that_the_next_run_works()


def test_a_scan_goes_on_when_the_session_is_killed_and_started_again(beamline: Beamline) -> None:
    beamline.start(**{**SHORT, "turns": 6})
    beamline.simulated.child("serve").kill()
    again = beamline.simulated.serve()
    try:
        ended = beamline.console.answer()
    finally:
        again.wait_until_ready(SOON_S)
    assert (ended["status"], ended["error"]) == ("success", "")
    beamline.check_that_the_next_run_works()
