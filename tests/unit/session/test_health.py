"""Health: a stage that fails is restarted once, then given up, and the others go on."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from simulated_run import emit_run, frames

from bluesky_jit import JITCallback, Session
from bluesky_jit.learn.buffer import PairBuffer
from bluesky_jit.messages import Problem, RunStop, SinkMessage
from bluesky_jit.session import axis_stage, intake_stage, publish_stage, slices_stage
from bluesky_jit.session.health import BACKGROUND_NICENESS, Stage
from bluesky_jit.session.learning import learner
from bluesky_jit.session.run import LiveRun
from bluesky_jit.settings import load_settings

SOON_S = 20.0


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.CRITICAL):
        yield


class Loop:
    """Fail a number of times, then run until it is ended."""

    def __init__(self, failures: int) -> None:
        self.left = failures
        self.runs = 0
        self.running = threading.Event()
        self.ended = threading.Event()

    def __call__(self) -> None:
        self.runs += 1
        if self.left:
            self.left -= 1
            raise RuntimeError(f"failure {self.runs}")
        self.running.set()
        self.ended.wait(SOON_S)


def started(body: Callable[[], None], **options: Any) -> tuple[Stage, list[Problem]]:
    problems: list[Problem] = []
    stage = Stage("kiln", body, problems.append, **options)
    stage.start()
    return stage, problems


def test_a_stage_that_ends_by_itself_is_no_failure() -> None:
    stage, problems = started(lambda: None)
    assert stage.join(SOON_S)
    assert (stage.lost, stage.failures, problems) == (False, 0, [])


def test_a_stage_that_fails_once_is_restarted_and_says_so() -> None:
    loop = Loop(failures=1)
    stage, problems = started(loop)
    assert loop.running.wait(SOON_S)
    assert not stage.lost
    loop.ended.set()
    assert stage.join(SOON_S)
    assert loop.runs == 2
    [problem] = problems
    assert (problem.text, problem.severity) == ("stage kiln failed (failure 1): it was restarted", "MAJOR")


def test_a_stage_that_fails_again_is_lost_and_says_so() -> None:
    loop = Loop(failures=5)
    stage, problems = started(loop)
    assert stage.join(SOON_S)
    assert stage.lost
    assert loop.runs == 2
    assert problems[-1].text == ("stage kiln failed (failure 2): the session goes on without it; restart the service")
    assert [problem.lasts for problem in problems] == ["", "stage kiln"]


def test_a_stage_that_is_busy_is_not_waited_for_for_ever() -> None:
    loop = Loop(failures=0)
    stage, _ = started(loop)
    assert not stage.join(0.01)
    loop.ended.set()
    assert stage.join(SOON_S)


@pytest.mark.skipif(not hasattr(os, "setpriority"), reason="threads have no priority of their own here")
def test_a_background_stage_gives_way_and_nobody_else_does() -> None:
    niceness: list[int] = []
    before = os.getpriority(os.PRIO_PROCESS, 0)
    stage, _ = started(lambda: niceness.append(os.getpriority(os.PRIO_PROCESS, 0)), background=True)
    assert stage.join(SOON_S)
    assert niceness == [max(before, BACKGROUND_NICENESS)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


class Broken:
    """Stand where a part of the session was, and fail at every use."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("broken on purpose")


@pytest.fixture(scope="module")
def streams() -> dict[str, np.ndarray]:
    return frames()


def test_slices_go_on_when_learning_is_lost(monkeypatch: pytest.MonkeyPatch, streams: dict) -> None:
    monkeypatch.setattr(learner.Learner, "train", Broken())
    settings = load_settings(environment={}, intake={"queue_frames": 4096}, learn={"buffer": 64})
    with Session(settings, sinks=[]) as session:
        assert session.wait_for(lambda status: status.state == "idle", SOON_S)
        for _ in range(2):
            uid = emit_run(JITCallback(session), streams)
            assert session.wait_for(lambda _, uid=uid: session.run is not None and session.run.uid == uid, SOON_S)
            assert session.wait_for(lambda _: session.run is not None and session.run.closed, SOON_S)
            update = session.latest("XY", "raw")
            assert update is not None
            assert update.run_uid == uid
            assert session.latest("XY", "denoised") is None
        assert session.status.state == "idle"
        assert "learning has failed" in session.status.learning.reason


def test_a_run_has_its_end_even_when_its_last_slices_fail(monkeypatch: pytest.MonkeyPatch, streams: dict) -> None:
    refresh = slices_stage.Slices.refresh

    def fail_at_the_end(stage: slices_stage.Slices, run: LiveRun, *, with_preview: bool) -> None:
        refresh(stage, run, with_preview=with_preview)
        if with_preview:
            raise ZeroDivisionError("broken on purpose")

    settings = load_settings(environment={}, intake={"queue_frames": 4096}, learn={"enabled": False})
    with Session(settings, sinks=[]) as session:
        monkeypatch.setattr(slices_stage.Slices, "refresh", fail_at_the_end)
        uid = emit_run(JITCallback(session), streams)
        assert session.wait_for(lambda status: (status.run_uid, status.state) == (uid, "idle"), SOON_S)
        assert session.wait_for(lambda status: "stage slices failed (broken on purpose)" in status.message, SOON_S)
        monkeypatch.undo()
        uid = emit_run(JITCallback(session), streams)
        assert session.wait_for(lambda status: (status.run_uid, status.state) == (uid, "idle"), SOON_S)
        assert session.latest("XY", "raw") is not None


class Sink:
    """Keep what is published, in order."""

    def __init__(self) -> None:
        self.messages: list[SinkMessage] = []

    def publish(self, message: SinkMessage) -> None:
        self.messages.append(message)

    def close(self) -> None:
        pass

    def ends(self) -> list[RunStop]:
        return [message for message in self.messages if isinstance(message, RunStop)]


RAW_ONLY = load_settings(environment={}, intake={"queue_frames": 4096}, learn={"enabled": False})


def test_runs_have_their_end_when_nobody_makes_slices_any_more(monkeypatch: pytest.MonkeyPatch, streams: dict) -> None:
    monkeypatch.setattr(slices_stage.Slices, "refresh", Broken())
    sink = Sink()
    with Session(RAW_ONLY, sinks=[sink]) as session:
        for number in range(3):
            uid = emit_run(JITCallback(session), streams)
            assert session.wait_for(lambda _, count=number + 1: len(sink.ends()) == count, SOON_S)
            assert (sink.ends()[-1].run_uid, sink.ends()[-1].exit_status) == (uid, "success")
        assert session.is_lost("slices")
        assert session.status.state == "failed"
        assert session.status.frames_lost == 0


def test_runs_have_their_end_and_nothing_piles_up_when_nobody_reads_frames_any_more(
    monkeypatch: pytest.MonkeyPatch, streams: dict
) -> None:
    sink = Sink()
    with Session(RAW_ONLY, sinks=[sink]) as session:

        def break_intake(number: int) -> None:
            if number == 10:
                assert session.wait_for(lambda status: status.projections > 5, SOON_S)
                monkeypatch.setattr(intake_stage.Intake, "step", Broken())
                assert session.wait_for(lambda status: status.state == "failed", SOON_S)

        uid = emit_run(JITCallback(session), streams, between=break_intake)
        assert session.wait_for(lambda _: bool(sink.ends()), SOON_S)
        [end] = sink.ends()
        assert (end.run_uid, end.exit_status) == (uid, "fail")
        assert "stage intake was lost" in end.reason
        emit_run(JITCallback(session), streams)
        assert session.inbox.empty
        assert "stage intake failed (broken on purpose)" in session.status.message
    assert len(sink.ends()) == 1


def test_slices_and_ends_go_on_when_the_axis_is_lost(monkeypatch: pytest.MonkeyPatch, streams: dict) -> None:
    monkeypatch.setattr(axis_stage.AxisWatch, "look", Broken())
    sink = Sink()
    with Session(RAW_ONLY, sinks=[sink]) as session:
        uid = emit_run(JITCallback(session), streams)
        assert session.wait_for(lambda _: bool(sink.ends()), SOON_S)
        assert session.is_lost("axis")
        assert session.status.state == "idle"
        update = session.latest("XY", "raw")
        assert update is not None
        assert update.run_uid == uid


def test_what_was_published_last_reaches_the_sinks_although_the_publish_stage_is_lost(
    monkeypatch: pytest.MonkeyPatch, streams: dict
) -> None:
    sink = Sink()
    with Session(RAW_ONLY, sinks=[sink]) as session:
        monkeypatch.setattr(session.outbox, "take", Broken())
        assert session.wait_for(lambda status: status.state == "failed", SOON_S)
        uid = emit_run(JITCallback(session), streams)
        assert session.wait_for(lambda _: session.run is not None and session.run.closed, SOON_S)
        monkeypatch.undo()
    assert [end.run_uid for end in sink.ends()] == [uid]


def test_want_of_memory_for_pairs_is_a_message_and_no_lost_stage(
    monkeypatch: pytest.MonkeyPatch, streams: dict
) -> None:
    def refuse(*_: Any) -> None:
        raise MemoryError("Unable to allocate 99. GiB")

    monkeypatch.setattr(PairBuffer, "push", refuse)
    settings = load_settings(environment={}, intake={"queue_frames": 4096}, learn={"buffer": 64})
    with Session(settings, sinks=[]) as session:
        emit_run(JITCallback(session), streams)
        assert session.wait_for(lambda status: "nothing is learned for want of memory" in status.message, SOON_S)
        assert "99. GiB" in session.status.message
        assert "learn.buffer" in session.status.message
        assert not session.learning_is_lost
        assert session.wait_for(lambda status: status.state == "idle", SOON_S)
        assert session.latest("XY", "raw") is not None


def test_an_intake_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish_stage, "HUNG_S", 0.05)
    release = threading.Event()

    def hang(*_: Any) -> None:
        release.wait(SOON_S)

    with Session(RAW_ONLY, sinks=[]) as session:
        monkeypatch.setattr(intake_stage.Intake, "handle", hang)
        for number in range(2):
            session.submit(Problem(text=f"message {number}"))
        assert session.wait_for(lambda status: "was taken in: does a disk hang" in status.message, SOON_S)
        assert session.status.lag_s > 0.05
        release.set()
