"""Several runs at a time: each has its own frames, slices and end, and people see the newest that brings frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from played_run import PlayedRun
from simulated_run import ANGLES, GEOMETRY, TOMO, emit_run, frames

from bluesky_jit import JITCallback, Session
from bluesky_jit.messages import Control, Problem, RunOpened, RunStart, RunStop, SessionStatus, SinkMessage, Update
from bluesky_jit.publish.on_show import OnShow
from bluesky_jit.session.intake_stage import LAST_SLICES_S, MOST_OPEN, Intake
from bluesky_jit.session.runs import STALE_S
from bluesky_jit.settings import load_settings

SOON_S = 30.0
OTHER = {**TOMO, "n_angles_per_rotation": ANGLES, "pixel_mm": 0.5}


class Sink:
    """Keep what is published, in order."""

    def __init__(self) -> None:
        self.messages: list[SinkMessage] = []

    def publish(self, message: SinkMessage) -> None:
        self.messages.append(message)

    def close(self) -> None:
        pass

    def of(self, kind: type, uid: str) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind) and uid_of(message) == uid]


def uid_of(message: SinkMessage) -> str:
    return message.start.run_uid if isinstance(message, RunOpened) else message.run_uid


@pytest.fixture(scope="module")
def streams() -> dict[str, np.ndarray]:
    return frames(turns=1)


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def session(sink: Sink) -> Iterator[Session]:
    with Session(settings(), sinks=[sink]) as running:
        yield running


def settings(**intake: Any) -> Any:
    return load_settings(
        environment={},
        learn={"enabled": False},
        slices={"updates_per_s": 50.0},
        intake={"queue_frames": 4096, "file_patience_s": 0.2, **intake},
    )


class Unstarted:
    """A session without threads whose intake takes its messages when the test says so."""

    def __init__(self, **intake: Any) -> None:
        self.session = Session(settings(**intake), sinks=[])
        self.intake = Intake(self.session)
        self.callback = JITCallback(self.session)

    def work(self) -> None:
        """Let intake take all that has come, read it, and end what is over."""
        while (message := self.session.inbox.take(0)) is not None:
            self.intake.handle(message)
        self.intake.step()
        while self.intake._pause_s() == 0:
            self.intake.step()

    def shown(self) -> str:
        assert self.session.run is not None
        return self.session.run.uid

    def ends(self) -> list[RunStop]:
        return [message for message in self.session.outbox.take(0) if isinstance(message, RunStop)]


def soon(session: Session, condition: Callable[[SessionStatus], bool]) -> None:
    assert session.wait_for(condition, SOON_S)


def interleave(first: PlayedRun, second: PlayedRun, streams: dict[str, np.ndarray]) -> None:
    """Emit two runs' frames in turns: those of the second are the first's in reverse, so that a mix-up would show."""
    for name, images in streams.items():
        for number in range(len(images)):
            first.frames(name, images[number : number + 1])
            second.frames(name, images[number : number + 1] if name != "primary" else images[-number - 1][None])


def test_interleaved_runs_lose_nothing_and_each_has_the_slices_that_it_would_have_alone(
    session: Session, sink: Sink, streams: dict
) -> None:
    callback = JITCallback(session)
    turned_back = {**streams, "primary": streams["primary"][::-1]}
    alone = []
    for images, tomo in ((streams, TOMO), (turned_back, OTHER)):
        uid = emit_run(callback, images, tomo=tomo)
        soon(session, lambda status, uid=uid: status.run_uid == uid and status.state == "idle")
        alone.append(session.latest("XY", "raw"))
    first, second = PlayedRun(callback), PlayedRun(callback, tomo=OTHER)
    interleave(first, second, streams)
    first.stop()
    second.stop()
    soon(session, lambda _: len(sink.of(RunStop, first.uid)) + len(sink.of(RunStop, second.uid)) == 2)
    session.stop()
    for run, expected in zip((first, second), alone, strict=True):
        assert [len(sink.of(kind, run.uid)) for kind in (RunOpened, RunStop)] == [1, 1]
        *_, last = sink.of(Update, run.uid)
        final = [update for update in sink.of(Update, run.uid) if (update.slice_name, update.kind) == ("XY", "raw")][-1]
        assert sink.messages.index(last) < sink.messages.index(sink.of(RunStop, run.uid)[0])
        assert expected is not None
        assert final.angles.count == ANGLES
        np.testing.assert_allclose(final.image, expected.image, rtol=0, atol=1e-6)
        figures = sink.of(SessionStatus, run.uid)[-1]
        counts = (figures.darks, figures.flats, figures.projections, figures.frames_lost)
        assert counts == (len(streams["darks"]), len(streams["flats"]), ANGLES, 0)


def test_people_see_the_newest_run_that_brings_frames_and_when_it_ends_the_older_one_again(streams: dict) -> None:
    bench = Unstarted()
    older = PlayedRun(bench.callback)
    older.frames("flats", streams["flats"])
    older.frames("primary", streams["primary"][:5])
    bench.work()
    assert bench.shown() == older.uid
    newer = PlayedRun(bench.callback)
    bench.work()
    assert bench.shown() == older.uid
    newer.frames("flats", streams["flats"])
    bench.work()
    assert bench.shown() == newer.uid
    older.frames("primary", streams["primary"][5:7])
    bench.work()
    assert bench.shown() == newer.uid
    newer.stop()
    bench.work()
    bench.session.close_run(bench.session.runs[newer.uid])
    bench.work()
    assert bench.shown() == older.uid
    assert bench.session.status.projections == 7


def test_an_older_run_that_brings_its_first_frames_is_recorded_and_not_shown(streams: dict) -> None:
    bench = Unstarted()
    older, newer = PlayedRun(bench.callback), PlayedRun(bench.callback)
    newer.frames("flats", streams["flats"])
    bench.work()
    older.frames("flats", streams["flats"])
    bench.work()
    opened = [message for message in bench.session.outbox.take(0) if isinstance(message, RunOpened)]
    assert [(message.start.run_uid, message.on_show) for message in opened] == [(newer.uid, True), (older.uid, False)]
    assert bench.shown() == newer.uid


def test_an_outer_run_without_frames_takes_nothing_away(streams: dict) -> None:
    bench = Unstarted()
    outer = PlayedRun(bench.callback)
    inner = PlayedRun(bench.callback)
    inner.frames("flats", streams["flats"])
    bench.work()
    assert bench.shown() == inner.uid
    inner.stop()
    bench.work()
    bench.session.close_run(bench.session.runs[inner.uid])
    bench.work()
    assert (bench.shown(), list(bench.session.runs)) == (inner.uid, [outer.uid])
    following = PlayedRun(bench.callback)
    bench.work()
    assert bench.shown() == following.uid


def test_a_run_that_stalls_gives_way_to_one_that_brings_frames(streams: dict) -> None:
    bench = Unstarted()
    older, newer = PlayedRun(bench.callback), PlayedRun(bench.callback)
    for run in (older, newer):
        run.frames("flats", streams["flats"])
        bench.work()
    assert bench.shown() == newer.uid
    bench.session.runs[newer.uid].fed_s -= 2 * STALE_S
    older.frames("primary", streams["primary"][:1])
    bench.work()
    assert bench.shown() == older.uid
    newer.frames("primary", streams["primary"][:1])
    bench.work()
    assert bench.shown() == newer.uid


def test_the_first_frames_of_a_run_wait_for_the_last_slices_of_one_that_ended_before_it_began(streams: dict) -> None:
    bench = Unstarted()
    first, second = PlayedRun(bench.callback), PlayedRun(bench.callback)
    first.frames("flats", streams["flats"])
    bench.work()
    first.stop()
    second.frames("flats", streams["flats"])
    bench.work()
    ended, begun = (bench.session.runs[run.uid] for run in (first, second))
    assert ended.drained
    assert begun.reconstruction is None
    assert bench.intake._feeds[second.uid].backlog == len(streams["flats"])
    bench.session.close_run(ended)
    bench.work()
    assert begun.reconstruction is not None
    assert (bench.session.inbox.fill, begun.frames.ledger.count("flat")) == (0, len(streams["flats"]))


def test_last_slices_that_are_not_made_in_time_hold_nobody_up(streams: dict, caplog: pytest.LogCaptureFixture) -> None:
    bench = Unstarted()
    first, second = PlayedRun(bench.callback), PlayedRun(bench.callback)
    first.frames("flats", streams["flats"])
    first.stop()
    second.frames("flats", streams["flats"])
    bench.work()
    bench.session.runs[first.uid].drained_s -= 2 * LAST_SLICES_S
    bench.work()
    bench.work()
    assert list(bench.session.runs) == [second.uid]
    assert bench.session.runs[second.uid].frames.ledger.count("flat") == len(streams["flats"])
    assert "were not made within 5 s" in caplog.text


def test_no_more_runs_go_on_than_memory_allows_and_the_one_that_was_silent_longest_is_ended(streams: dict) -> None:
    bench = Unstarted()
    runs = [PlayedRun(bench.callback) for _ in range(MOST_OPEN)]
    for run in runs:
        run.frames("flats", streams["flats"][:1])
        bench.work()
    silent = runs[1]
    bench.intake._feeds[silent.uid].heard_s -= 100.0
    one_more = PlayedRun(bench.callback)
    bench.work()
    stop = bench.session.runs[silent.uid].stop
    assert stop is not None
    assert stop.exit_status == "fail"
    assert stop.reason == f"another run began while {MOST_OPEN} went on, and this one was silent for 100 s"
    assert stop.reason in bench.session.status.message
    going_on = [uid for uid, run in bench.session.runs.items() if run.stop is None]
    assert going_on == [run.uid for run in runs if run is not silent] + [one_more.uid]


def test_a_run_that_falls_silent_is_ended_and_what_comes_after_is_counted_but_opens_nothing(streams: dict) -> None:
    bench = Unstarted(watchdog_s=600.0)
    run = PlayedRun(bench.callback)
    run.frames("flats", streams["flats"])
    bench.work()
    bench.intake._feeds[run.uid].heard_s -= 599.0
    bench.work()
    assert bench.session.runs[run.uid].stop is None
    bench.intake._feeds[run.uid].heard_s -= 2.0
    bench.work()
    live = bench.session.runs[run.uid]
    bench.session.close_run(live)
    bench.work()
    [stop] = bench.ends()
    assert (stop.run_uid, stop.exit_status) == (run.uid, "fail")
    assert "nothing came of it for 600 s (intake.watchdog_s), and no stop document" in stop.reason
    run.frames("primary", streams["primary"][:3])
    run.stop()
    bench.work()
    assert bench.ends() == []
    status = bench.session.status
    assert (status.frames_lost, status.projections, bench.session.runs) == (3, 0, {})
    assert "came after it had ended (nothing came of it for 600 s" in status.message


def test_frames_keep_a_run_from_being_ended(streams: dict) -> None:
    bench = Unstarted(watchdog_s=600.0)
    run = PlayedRun(bench.callback)
    for number in range(3):
        run.frames("flats", streams["flats"][number : number + 1])
        bench.work()
        bench.intake._feeds[run.uid].heard_s -= 400.0
    assert bench.session.runs[run.uid].stop is None


def test_a_run_that_goes_on_when_the_session_ends_has_its_end_there(
    session: Session, sink: Sink, streams: dict
) -> None:
    run = PlayedRun(JITCallback(session))
    run.frames("flats", streams["flats"])
    soon(session, lambda status: status.flats == len(streams["flats"]))
    session.stop()
    [stop] = sink.of(RunStop, run.uid)
    assert (stop.exit_status, stop.reason) == ("abort", "the session ended")


def test_a_message_of_a_run_that_is_not_on_show_names_it(streams: dict) -> None:
    bench = Unstarted()
    older, newer = PlayedRun(bench.callback), PlayedRun(bench.callback)
    for run in (older, newer):
        run.frames("flats", streams["flats"])
    bench.work()
    bench.session.report(Problem(text="its file is gone", severity="MAJOR", run_uid=older.uid))
    bench.session.report(Problem(text="slight", run_uid=newer.uid))
    status = bench.session.status
    assert (status.message, status.severity) == (f"run {older.uid[:8]}: its file is gone", "MAJOR")
    older.stop()
    bench.work()
    bench.session.close_run(bench.session.runs[older.uid])
    bench.work()
    assert bench.session.status.message == "slight"


def test_the_record_of_a_run_that_is_not_on_show_has_slices_of_each_turn(
    session: Session, sink: Sink, streams: dict
) -> None:
    callback = JITCallback(session)
    older, newer = PlayedRun(callback), PlayedRun(callback)
    for run in (older, newer):
        run.frames("flats", streams["flats"])
        run.frames("primary", streams["primary"][:1])
    soon(session, lambda status: status.run_uid == newer.uid)
    older.frames("primary", streams["primary"][1:])
    soon(session, lambda _: bool(sink.of(Update, older.uid)))
    assert session.run is not None
    assert session.run.uid == newer.uid
    assert sink.of(Update, older.uid)[-1].turn == 1


def test_controls_are_the_run_on_shows(session: Session, streams: dict) -> None:
    callback = JITCallback(session)
    older, newer = PlayedRun(callback), PlayedRun(callback)
    for run in (older, newer):
        run.frames("flats", streams["flats"])
        run.frames("primary", streams["primary"][:1])
    soon(session, lambda status: (status.run_uid, status.projections) == (newer.uid, 1))
    session.control(Control(name="AxisOffset", value=2.0))
    offsets = [run.reconstruction.geometry.axis_offset_mm for run in session.runs.values() if run.reconstruction]
    assert offsets == [0.0, 2.0]


def test_servers_show_one_run_and_know_how_each_was_opened() -> None:
    show = OnShow()

    def opened(uid: str, *, on_show: bool) -> RunOpened:
        run = RunStart(run_uid=uid, scan_id=1, plan_name="", time_s=0.0, tomo={})
        return RunOpened(start=run, geometry=GEOMETRY, settings={}, on_show=on_show)

    first, second = opened("a", on_show=True), opened("b", on_show=False)
    assert show.takes(first)
    assert not show.takes(second)
    assert show.opened is first
    assert not show.takes(SessionStatus(time_s=0.0, run_uid="b", on_show=False))
    assert show.takes(SessionStatus(time_s=0.0, run_uid="b"))
    assert show.opened is second
    show.takes(RunStop(run_uid="b", time_s=0.0, exit_status="success"))
    assert show.opened is second
    assert show.takes(SessionStatus(time_s=0.0, run_uid="a"))
    assert show.opened is first
    show.takes(SessionStatus(time_s=0.0, run_uid="b"))
    assert show.opened is None
