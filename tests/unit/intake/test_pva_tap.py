"""The tap: frames of a real pvAccess server on this machine, each with what it says of itself."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import numpy as np
import pytest
from p4p.client.thread import Context
from pva_camera import PVACamera
from servers import wait_for

from bluesky_jit.intake.pva_tap import PVATap, client_conf
from bluesky_jit.messages import InlineFrames, Problem, RunStart
from bluesky_jit.settings import load_settings

START_S = 1_790_000_000.0
SHAPE = (2, 3)
_numbers = itertools.count()


def run(uid: str = "r") -> RunStart:
    return RunStart(run_uid=uid, scan_id=1, plan_name="", time_s=START_S, tomo={})


def picture(value: int) -> np.ndarray:
    return np.arange(value, value + 6, dtype=np.uint16).reshape(SHAPE)


class Following:
    """A tap that follows a camera, and what it has handed on."""

    def __init__(self, camera: PVACamera, **options: str) -> None:
        self.frames: list[InlineFrames] = []
        self.problems: list[Problem] = []
        self._context = Context("pva", conf=camera.client_conf, useenv=False, nt=False)
        self.tap = PVATap(camera.name, self._context, self.frames.append, report=self.problems.append, **options)
        wait_for(lambda: self.tap.connected, what="the tap's connection")

    def wait_for_frames(self, n: int) -> None:
        wait_for(lambda: len(self.frames) >= n, what=f"{n} frames")

    def wait_until_seen(self, unique_id: int) -> None:
        wait_for(lambda: self.tap.last is not None and self.tap.last[0] == unique_id, what=f"frame {unique_id}")

    def ids(self) -> list[int]:
        return [int(frame.unique_ids[0]) for frame in self.frames]

    def close(self) -> None:
        self.tap.close()
        self._context.close()


@pytest.fixture(scope="module")
def camera() -> Iterator[PVACamera]:
    with PVACamera(f"T{os.getpid()}TAP{next(_numbers)}:Pva1:Image") as served:
        yield served


@pytest.fixture
def following(camera: PVACamera) -> Iterator[Following]:
    made = Following(camera)
    yield made
    made.close()


def test_a_frame_comes_with_its_number_time_kind_and_angle(camera: PVACamera, following: Following) -> None:
    following.tap.open_run(run())
    camera.post(picture(7), 41, START_S + 1.25, Angle=90.0, FrameType=2)
    following.wait_for_frames(1)
    frame = following.frames[0]
    assert (frame.run_uid, frame.kind, frame.tapped, frame.awaits_documents) == ("r", "projection", True, False)
    np.testing.assert_array_equal(frame.counts, picture(7)[np.newaxis])
    assert (frame.unique_ids.tolist(), frame.frame_times_s.tolist()) == ([41], [START_S + 1.25])
    assert frame.angles_rad == pytest.approx([np.pi / 2])
    assert frame.angle_source == "frame attribute"


@pytest.mark.parametrize(
    ("attributes", "kind", "awaits_documents"),
    [
        ({"FrameType": 0}, "dark", False),
        ({"FrameType": 1}, "flat", False),
        ({"FrameType": "DarkField"}, "dark", False),
        ({"FrameType": "FlatField"}, "flat", False),
        ({"FrameType": "Projection", "StreamTheta": 10.0}, "projection", False),
        ({"FrameType": 2}, "projection", True),
        ({"FrameType": 2, "Angle": float("nan")}, "projection", True),
        ({"Angle": 10.0}, "projection", True),
        ({"FrameType": 7, "Angle": 10.0}, "projection", True),
    ],
)
def test_a_frame_that_does_not_say_what_it_is_or_at_what_angle_waits_for_documents(
    camera: PVACamera, following: Following, attributes: dict, kind: str, awaits_documents: bool
) -> None:
    following.tap.open_run(run())
    camera.post(picture(1), 1, START_S + 1, **attributes)
    following.wait_for_frames(1)
    assert (following.frames[0].kind, following.frames[0].awaits_documents) == (kind, awaits_documents)


def test_the_angles_attribute_and_unit_can_be_set(camera: PVACamera) -> None:
    following = Following(camera, angle="Encoder", angle_unit="rad")
    following.tap.open_run(run())
    camera.post(picture(1), 1, START_S + 1, FrameType=2, Encoder=1.5, Angle=90.0)
    following.wait_for_frames(1)
    following.close()
    assert following.frames[0].angles_rad == pytest.approx([1.5])


def test_frames_outside_a_run_and_from_before_it_are_no_ones(camera: PVACamera, following: Following) -> None:
    camera.post(picture(1), 201, START_S + 1, FrameType=0)
    following.wait_until_seen(201)
    following.tap.open_run(run())
    camera.post(picture(2), 202, START_S - 0.1, FrameType=0)
    camera.post(picture(3), 203, START_S + 3, FrameType=0)
    following.wait_for_frames(1)
    following.tap.end_run("r")
    camera.post(picture(4), 204, START_S + 4, FrameType=0)
    following.wait_until_seen(204)
    following.tap.open_run(run("next"))
    camera.post(picture(5), 205, START_S + 5, FrameType=0)
    following.wait_for_frames(2)
    assert [(frame.run_uid, int(frame.unique_ids[0])) for frame in following.frames] == [("r", 203), ("next", 205)]
    assert following.problems == []


def test_frames_that_two_open_runs_might_have_taken_are_no_ones_until_one_has_ended(
    camera: PVACamera, following: Following
) -> None:
    following.tap.open_run(run("older"))
    camera.post(picture(1), 301, START_S + 1, FrameType=0)
    following.wait_for_frames(1)
    following.tap.open_run(run("newer"))
    for number in (302, 303):
        camera.post(picture(2), number, START_S + 2, FrameType=0)
    following.wait_until_seen(303)
    following.tap.end_run("newer")
    camera.post(picture(3), 304, START_S + 3, FrameType=0)
    following.wait_for_frames(2)
    assert [(frame.run_uid, int(frame.unique_ids[0])) for frame in following.frames] == [("older", 301), ("older", 304)]
    # Nor is it told that no frame of the newer one came: the plugin is not to blame.
    [problem] = following.problems
    assert "2 open runs take the frames of" in problem.text
    assert "frames are taken from the runs' records" in problem.text


def test_the_frame_that_a_server_repeats_when_it_is_back_is_left_out_and_the_rest_come(camera: PVACamera) -> None:
    following = Following(camera)
    following.tap.open_run(run())
    camera.post(picture(1), 1, START_S + 1, FrameType=0)
    following.wait_for_frames(1)
    camera.disconnect()
    wait_for(lambda: not following.tap.connected, what="the end of the connection")
    camera.come_back(picture(1), 1, START_S + 1, FrameType=0)
    wait_for(lambda: following.tap.connected, what="the next connection")
    camera.post(picture(3), 3, START_S + 3, FrameType=0)
    following.wait_for_frames(2)
    following.close()
    assert following.ids() == [1, 3]
    assert len(following.problems) == 1
    assert "is disconnected: frames are taken from the run's records" in following.problems[0].text


def test_a_run_that_got_no_frames_is_told_where_to_look(following: Following) -> None:
    following.tap.open_run(run("3f2a91c0"))
    following.tap.end_run("3f2a91c0")
    assert "no frame of run 3f2a91c0 came by PVA" in following.problems[0].text
    assert "EnableCallbacks" in following.problems[0].text


@pytest.mark.parametrize(
    ("counts", "changes", "words"),
    [
        (picture(1), {"codec.name": "jpeg"}, "compressed by jpeg: connect the PVA plugin before the codec"),
        (np.zeros((2, 3, 3), dtype=np.uint16), {}, "arrays of 3 dimensions and not pictures"),
        (picture(1), {"dimension": [{"size": 4}, {"size": 4}]}, "could not be read"),
    ],
)
def test_what_is_no_plain_picture_is_told_once_and_left_to_the_records(
    camera: PVACamera,
    following: Following,
    counts: np.ndarray,
    changes: dict,
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    following.tap.open_run(run())
    for _ in range(2):
        camera.post_changed(counts, changes)
    camera.post(picture(5), 5, START_S + 5, FrameType=0)
    following.wait_for_frames(1)
    assert following.ids() == [5]
    assert [words in problem.text for problem in following.problems] == [True]


def test_a_clock_that_is_far_off_is_told(camera: PVACamera, following: Following) -> None:
    following.tap.open_run(run())
    camera.post(picture(1), 1, START_S + 1, FrameType=0)
    following.wait_for_frames(1)
    camera.post(picture(2), 2, START_S - 3600, FrameType=0)
    camera.post(picture(3), 3, START_S + 3, FrameType=0)
    following.wait_for_frames(2)
    assert following.ids() == [1, 3]
    assert "stamped 3600 s before their run began: set the detector's clock" in following.problems[0].text


def test_a_clock_that_is_a_little_behind_is_told_when_it_has_cost_all_frames(
    camera: PVACamera, following: Following
) -> None:
    following.tap.open_run(run())
    for number in (401, 402):
        camera.post(picture(1), number, START_S - 1.5, FrameType=0)
    following.wait_until_seen(402)
    following.tap.end_run("r")
    [problem] = following.problems
    assert "stamped 1.5 s before it began (set the detector's clock)" in problem.text
    assert "EnableCallbacks" not in problem.text


@pytest.mark.parametrize(("early_s", "told"), [(5.0, True), (0.5, False)])
def test_frames_that_come_in_a_run_and_are_stamped_seconds_before_it_tell_of_a_wrong_clock(
    camera: PVACamera, following: Following, early_s: float, told: bool
) -> None:
    following.tap.open_run(run())
    for number in (501, 502):
        camera.post(picture(1), number, START_S - early_s, FrameType=0)
    following.wait_until_seen(502)
    assert following.frames == []
    assert ["stamped 5 s before their run began" in problem.text for problem in following.problems] == [True] * told


def test_pvs_are_looked_for_on_this_machine_unless_the_environment_says_where() -> None:
    settings = load_settings(environment={}, beamline={"pva_port": 7075})
    assert client_conf(settings, {})["EPICS_PVA_NAME_SERVERS"] == "127.0.0.1:7075"
    assert client_conf(settings, {"EPICS_PVA_ADDR_LIST": "192.0.2.7"}) == {}
