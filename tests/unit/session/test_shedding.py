"""What is left undone while frames come too fast: display first, then training, and never a frame silently."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from filed_frames import filed_frames
from played_run import PlayedRun
from simulated_run import ANGLES, TOMO, emit_run, frames

from bluesky_jit import JITCallback, Session
from bluesky_jit.messages import Asset, RunStart, SessionStatus
from bluesky_jit.publish import table
from bluesky_jit.session.feed import Feed
from bluesky_jit.session.intake_stage import Intake
from bluesky_jit.session.shedding import BEHIND_S, FALL_S, HALF, RISE_S, SLOWDOWN, Shedding
from bluesky_jit.settings import load_settings

SOON_S = 30.0
LATE_S, FULL = 2 * BEHIND_S, (1 + HALF) / 2


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def streams() -> dict[str, np.ndarray]:
    return frames(turns=2, photons=600)


# ── when ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_frames_that_are_used_in_time_cost_nothing(clock: Clock) -> None:
    shedding = Shedding(clock=clock)
    for _ in range(100):
        clock.now_s += 1.0
        assert not shedding.look(BEHIND_S, HALF)
    assert (shedding.level, shedding.slowdown) == (0, 1.0)


@pytest.mark.parametrize(("lag_s", "fill"), [(LATE_S, 0.0), (0.0, FULL)], ids=["frames wait", "the inbox fills"])
def test_display_gives_way_first_then_pairs_and_then_steps(clock: Clock, lag_s: float, fill: float) -> None:
    shedding = Shedding(clock=clock)
    told = [shedding.look(lag_s, fill)]
    assert (shedding.level, shedding.slowdown) == (1, SLOWDOWN)
    levels = []
    for _ in range(3):
        clock.now_s += RISE_S
        told.append(shedding.look(lag_s, fill))
        levels.append(shedding.level)
    assert levels == [2, 3, 3]
    assert told == [False, True, False, False]


def test_what_was_given_up_has_time_to_take_effect(clock: Clock) -> None:
    shedding = Shedding(clock=clock)
    shedding.look(LATE_S, 0.0)
    clock.now_s += 0.9 * RISE_S
    shedding.look(LATE_S, 0.0)
    assert shedding.level == 1


def test_it_recovers_by_itself_step_by_step(clock: Clock) -> None:
    shedding = Shedding(clock=clock)
    for _ in range(3):
        shedding.look(LATE_S, 0.0)
        clock.now_s += RISE_S
    levels = []
    for _ in range(7):
        shedding.look(0.0, 0.0)
        levels.append(shedding.level)
        clock.now_s += FALL_S / 2
    assert levels == [3, 2, 2, 1, 1, 0, 0]
    clock.now_s += 100.0
    shedding.look(LATE_S, 0.0)
    assert shedding.level == 1


# ── what is measured ─────────────────────────────────────────────────────────────────────────────────────────────────


class Unstarted:
    """A session without threads whose intake works when the test says so."""

    def __init__(self, *, queue_frames: int = 4096) -> None:
        settings = load_settings(
            environment={}, learn={"enabled": False}, intake={"queue_frames": queue_frames, "file_patience_s": 0.0}
        )
        self.session = Session(settings, sinks=[])
        self.intake = Intake(self.session)
        self.callback = JITCallback(self.session)

    def take(self) -> None:
        while (message := self.session.inbox.take(0)) is not None:
            self.intake.handle(message)

    def work(self) -> None:
        self.take()
        self.intake.step()
        while self.intake._pause_s() == 0:
            self.intake.step()
        self.intake.step()


def age(feed: Feed, seconds: float) -> None:
    """Let the flats of a run have waited for longer."""
    for entry in feed.queues._flats:
        entry.came_s -= seconds


def test_the_backlog_counts_frames_that_have_come_and_how_long_they_have_waited(streams: dict) -> None:
    bench = Unstarted()
    run = PlayedRun(bench.callback)
    run.frames("flats", streams["flats"])
    bench.take()
    feed = bench.intake._feeds[run.uid]
    age(feed, 5.0)
    bench.intake._look_at_backlog()
    status = bench.session.status
    assert status.backlog == len(streams["flats"])
    assert 5.0 <= status.lag_s < 5.0 + SOON_S
    assert bench.session.shedding.level == 1
    bench.work()
    assert (bench.session.status.backlog, bench.session.status.lag_s) == (0, 0.0)


def test_messages_that_intake_has_not_taken_count_as_well(streams: dict) -> None:
    bench = Unstarted()
    PlayedRun(bench.callback)
    came_s, message = bench.session.inbox._messages[0]
    bench.session.inbox._messages[0] = (came_s - 5.0, message)
    assert bench.session.inbox.age_s >= 5.0
    bench.intake._look_at_backlog()
    assert bench.session.shedding.level == 1


def test_frames_that_wait_for_their_file_are_no_reason_to_leave_anything_undone(tmp_path: Path) -> None:
    bench = Unstarted()
    bench.session.submit(RunStart(run_uid="filed", scan_id=1, plan_name="", time_s=0.0, tomo=TOMO))
    for first in (0, 40):
        image = Asset(uri=f"file://localhost{tmp_path}/later.h5", dataset="/data", first=first, count=40, swmr=True)
        bench.session.submit(filed_frames(image, run_uid="filed", kind="flat"))
    bench.take()
    bench.intake.step()
    feed = bench.intake._feeds["filed"]
    age(feed, 100.0)
    bench.intake._look_at_backlog()
    assert (bench.session.status.backlog, bench.session.status.lag_s, feed.lag_s) == (80, 0.0, 0.0)
    with h5py.File(tmp_path / "later.h5", "w", libver="latest") as file:
        file["data"] = np.full((80, 6, 8), 1000, dtype=np.uint16)
    bench.intake.step()
    # From now on they could be used.
    assert feed.lag_s < 100.0
    bench.work()
    assert (bench.session.status.flats, bench.session.status.backlog) == (80, 0)


def test_frames_that_do_not_fit_are_lost_once_and_the_others_keep_their_numbers(streams: dict) -> None:
    bench = Unstarted(queue_frames=30)
    run = PlayedRun(bench.callback)
    run.frames("flats", streams["flats"])
    bench.work()
    run.frames("primary", streams["primary"][:40])
    bench.work()
    run.frames("primary", streams["primary"][40:50])
    bench.work()
    status, live = bench.session.status, bench.session.runs[run.uid]
    assert (status.projections, status.frames_lost) == (40, 10)
    assert "frames come faster than they can be used" in status.message
    assert live.reconstruction is not None
    assert live.reconstruction.newest == 49
    run.stop()
    bench.work()
    assert (bench.session.status.projections, bench.session.status.frames_lost) == (40, 10)


# ── what is left undone ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A session that the test tells what to leave undone."""
    settings = load_settings(
        environment={},
        learn={"buffer": 160, "patch": 16},
        slices={"updates_per_s": 50.0},
        intake={"queue_frames": 4096},
    )
    monkeypatch.setattr(Shedding, "look", lambda *_: False)
    with Session(settings, sinks=[]) as running:
        yield running


def test_training_waits_while_slices_go_on_and_goes_on_by_itself(session: Session, streams: dict) -> None:
    session.shedding.level = 3
    run = PlayedRun(JITCallback(session))
    for name, images in streams.items():
        run.frames(name, images)

    def is_shed(status: SessionStatus) -> bool:
        return min(status.shed.updates, status.shed.pairs, status.shed.steps) > 0

    assert session.wait_for(is_shed, SOON_S)
    assert session.wait_for(lambda status: status.projections == 2 * ANGLES and status.update > 0, SOON_S)
    learning = session.status.learning
    assert (learning.step, learning.pairs) == (0, 0)
    assert learning.reason.startswith("learning waits for frames that come too fast; ")
    assert session.latest("XY", "raw") is not None
    session.shedding.level = 0
    assert session.wait_for(lambda status: status.learning.step > 0, SOON_S)
    left_out = session.status.shed
    run.stop()
    assert session.wait_for(lambda status: status.state == "idle", SOON_S)
    assert session.status.shed.pairs == left_out.pairs


def test_pairs_are_left_out_before_steps(session: Session, streams: dict) -> None:
    session.shedding.level = 2
    run = PlayedRun(JITCallback(session))
    for name, images in streams.items():
        run.frames(name, images)
    assert session.wait_for(lambda status: status.shed.pairs > 0, SOON_S)
    assert session.status.shed.steps == 0


def test_nothing_is_left_undone_in_a_run_that_is_in_time(session: Session, streams: dict) -> None:
    emit_run(JITCallback(session), streams)
    assert session.wait_for(lambda status: bool(status.run_uid) and status.state == "idle", SOON_S)
    shed = session.status.shed
    assert (shed.updates, shed.pairs, shed.steps) == (0, 0, 0)


def test_clients_see_what_was_left_undone() -> None:
    status = SessionStatus(time_s=0.0, backlog=7, lag_s=1.5)
    shown = {name: table.reading(table.row(name), status) for name in ("Backlog", "Lag", "Shed:Updates", "Shed:Pairs")}
    assert {name: reading and tuple(reading) for name, reading in shown.items()} == {
        "Backlog": (7, "NO_ALARM"),
        "Lag": (1.5, "MINOR"),
        "Shed:Updates": (0, "NO_ALARM"),
        "Shed:Pairs": (0, "NO_ALARM"),
    }
