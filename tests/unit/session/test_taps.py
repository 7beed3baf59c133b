"""Which runs the taps give frames to, and when they are made ready."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

import numpy as np
import p4p.client.thread
import pytest
from pva_camera import PVACamera
from servers import wait_for
from simulated_run import TOMO

from bluesky_jit import Session
from bluesky_jit.messages import InlineFrames, Problem, RunStart, RunStop
from bluesky_jit.session.intake_stage import MOST_OPEN, Intake
from bluesky_jit.session.taps import Taps
from bluesky_jit.settings import load_settings

FRAME = np.ones((2, 3), dtype=np.uint16)


def run(uid: str, pv: str = "") -> RunStart:
    return RunStart(run_uid=uid, scan_id=1, plan_name="", time_s=1.0, tomo={**TOMO, "pva": pv} if pv else TOMO)


@pytest.fixture(scope="module")
def camera() -> Iterator[PVACamera]:
    with PVACamera(f"T{os.getpid()}TAPS:Pva1:Image") as served:
        yield served


class Tapped:
    """Taps that look for the camera only, and what they hand on."""

    def __init__(self, camera: PVACamera, monkeypatch: pytest.MonkeyPatch, **intake: str) -> None:
        for name, value in camera.client_conf.items():
            if name.startswith("EPICS_PVA_"):
                monkeypatch.setenv(name, value)
        self.frames: list[InlineFrames] = []
        self.problems: list[Problem] = []
        settings = load_settings(environment={}, intake=intake)
        self.taps = Taps(settings, self.frames.append, self.problems.append)
        self.taps.start()


@pytest.fixture
def tapped(camera: PVACamera, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tapped]:
    made = Tapped(camera, monkeypatch)
    yield made
    made.taps.close()


def test_frames_go_to_the_run_that_names_their_pv_until_it_ends(camera: PVACamera, tapped: Tapped) -> None:
    tapped.taps.hear(run("a", camera.name))
    number = 0

    def came() -> bool:
        nonlocal number
        number += 1
        camera.post(FRAME, number, 10.0 + number, FrameType=0)
        return bool(tapped.frames)

    wait_for(came, what="a frame")
    tapped.taps.hear(RunStop(run_uid="a", time_s=time.time(), exit_status="success"))
    assert {frame.run_uid for frame in tapped.frames} == {"a"}
    assert tapped.problems == []


def test_who_submits_a_run_does_not_wait_until_pvaccess_is_imported(
    camera: PVACamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "bluesky_jit.intake.pva_tap", raising=False)
    Tapped(camera, monkeypatch).taps.close()
    assert "bluesky_jit.intake.pva_tap" in sys.modules


def test_pvaccess_that_cannot_be_used_costs_a_message_and_no_run(
    camera: PVACamera, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr(p4p.client.thread.Context, "__init__", refuse)
    tapped = Tapped(camera, monkeypatch, pva=camera.name)
    tapped.taps.hear(run("a"))
    assert [problem.text for problem in tapped.problems] == [f"{camera.name} cannot be followed: no network"] * 2


def test_a_run_that_intake_gives_up_takes_no_more_frames() -> None:
    session = Session(load_settings(environment={}, learn={"enabled": False}), sinks=[])
    heard: list[object] = []
    session.taps.hear = heard.append
    intake = Intake(session)
    for number in range(MOST_OPEN + 1):
        intake.handle(run(str(number)))
    [stop] = heard
    assert isinstance(stop, RunStop)
    assert (stop.run_uid, stop.exit_status) == ("0", "fail")
