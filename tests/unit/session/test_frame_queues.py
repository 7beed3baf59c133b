"""Frames that wait for a file hold up none of another kind or run, and what waits at the end is told once."""

from __future__ import annotations

import logging
from pathlib import Path

import h5py
import numpy as np
import pytest
from filed_frames import filed_frames
from simulated_run import ANGLES, TOMO

from bluesky_jit import Session
from bluesky_jit.messages import Asset, AssetFrames, FrameKind, InlineFrames, RunStart, RunStop
from bluesky_jit.session.frame_queues import FrameQueues
from bluesky_jit.session.intake_stage import HELD_BACK, Intake
from bluesky_jit.session.run import LiveRun
from bluesky_jit.settings import load_settings

SHAPE = (6, 8)
LEVELS: dict[str, int] = {"dark": 100, "flat": 9000, "projection": 5000}
LONG_S = 100.0


def inline(uid: str, kind: FrameKind, n: int = 1, *, tapped: bool = False, awaits: bool = False) -> InlineFrames:
    return InlineFrames(
        run_uid=uid,
        kind=kind,
        counts=np.full((n, *SHAPE), LEVELS[kind], dtype=np.uint16),
        unique_ids=np.arange(n),
        frame_times_s=np.arange(n, dtype=float),
        angles_rad=np.arange(n) * 2 * np.pi / ANGLES if kind == "projection" else None,
        angle_source="same stream",
        tapped=tapped,
        awaits_documents=awaits,
        numbered=tapped,
    )


def filed(uid: str, kind: FrameKind, path: Path, n: int, *, first: int = 0, swmr: bool = True) -> AssetFrames:
    def asset(dataset: str) -> Asset:
        return Asset(uri=path.as_uri(), dataset=dataset, first=first, count=n, swmr=swmr)

    return filed_frames(asset("image"), run_uid=uid, kind=kind, angle=asset("angle") if kind == "projection" else None)


def write(path: Path, kind: FrameKind, n: int) -> Path:
    with h5py.File(path, "w", libver="latest") as file:
        file["image"] = np.full((n, *SHAPE), LEVELS[kind], dtype=np.uint16)
        file["angle"] = np.arange(n) * 2 * np.pi / ANGLES
    return path


class Bench:
    """A session without threads whose intake works when the test says so."""

    def __init__(self, *, patience_s: float = LONG_S, queue_frames: int = 4096) -> None:
        settings = load_settings(
            environment={},
            learn={"enabled": False},
            intake={"file_patience_s": patience_s, "queue_frames": queue_frames},
        )
        self.session = Session(settings, sinks=[])
        self.intake = Intake(self.session)

    def start(self, uid: str) -> None:
        self.session.submit(RunStart(run_uid=uid, scan_id=1, plan_name="", time_s=0.0, tomo=TOMO))

    def stop(self, uid: str) -> None:
        self.session.submit(RunStop(run_uid=uid, time_s=1.0, exit_status="success"))

    def take(self) -> None:
        while (message := self.session.inbox.take(0)) is not None:
            self.intake.handle(message)

    def work(self) -> None:
        self.take()
        self.intake.step()
        while self.intake._pause_s() == 0:
            self.intake.step()

    def run(self, uid: str) -> LiveRun:
        return self.session.runs[uid]

    def counts(self, uid: str) -> tuple[int, int, int]:
        ledger = self.run(uid).frames.ledger
        return ledger.count("dark"), ledger.count("flat"), ledger.count("projection")


# ── in one run ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_row_that_does_not_come_holds_up_no_frames_of_another_kind(tmp_path: Path) -> None:
    bench = Bench()
    bench.start("a")
    bench.session.submit(filed("a", "dark", write(tmp_path / "d.h5", "dark", 5), 6))
    bench.session.submit(filed("a", "flat", write(tmp_path / "f.h5", "flat", 20), 20))
    bench.session.submit(filed("a", "projection", write(tmp_path / "p.h5", "projection", 40), 40))
    bench.work()
    assert bench.counts("a") == (0, 20, 40)
    bench.work()
    assert bench.session.status.backlog == 6
    reconstruction = bench.run("a").reconstruction
    assert reconstruction is not None
    assert reconstruction.ready


def test_frames_in_events_pass_a_file_that_is_read_when_the_run_has_ended(tmp_path: Path) -> None:
    bench = Bench()
    bench.start("a")
    bench.session.submit(filed("a", "dark", write(tmp_path / "d.h5", "dark", 5), 5, swmr=False))
    for kind in ("flat", "projection"):
        bench.session.submit(inline("a", kind, 3))
    with h5py.File(tmp_path / "d.h5", "a", libver="latest"):
        # While somebody writes it.
        bench.work()
        assert bench.counts("a")[1:] == (3, 3)
    assert bench.session.inbox.fill == 0
    bench.stop("a")
    bench.work()
    assert bench.counts("a") == (5, 3, 3)


def test_frames_of_one_kind_keep_their_order_whatever_file_they_are_in(tmp_path: Path) -> None:
    bench = Bench()
    bench.start("a")
    bench.session.submit(filed("a", "projection", tmp_path / "later.h5", 2))
    bench.session.submit(inline("a", "projection", 3))
    bench.work()
    assert bench.counts("a") == (0, 0, 0)
    write(tmp_path / "later.h5", "projection", 2)
    bench.work()
    assert bench.counts("a") == (0, 0, 5)


@pytest.mark.parametrize("here", [True, False], ids=["in time", "late"])
def test_flats_belong_to_the_projections_around_them_however_late_their_file_is(tmp_path: Path, here: bool) -> None:
    bench = Bench()
    bench.start("a")
    bench.session.submit(inline("a", "projection", 4))
    bench.session.submit(filed("a", "flat", tmp_path / "f.h5", 3))
    bench.session.submit(inline("a", "projection", 5))
    bench.session.submit(filed("a", "flat", tmp_path / "f.h5", 3, first=3))
    if here:
        write(tmp_path / "f.h5", "flat", 6)
    bench.work()
    assert bench.counts("a") == (0, 6 if here else 0, 9)
    if not here:
        write(tmp_path / "f.h5", "flat", 6)
    bench.work()
    reconstruction = bench.run("a").reconstruction
    assert reconstruction is not None
    assert [flats.after for flats in reconstruction.dark_flat._sets] == [4, 9]


def test_flats_wait_for_the_projections_before_them(tmp_path: Path) -> None:
    bench = Bench()
    bench.start("a")
    bench.session.submit(filed("a", "projection", tmp_path / "later.h5", 2))
    bench.session.submit(inline("a", "flat", 3))
    bench.work()
    assert bench.intake._pause_s() > 0
    assert bench.counts("a") == (0, 0, 0)
    write(tmp_path / "later.h5", "projection", 2)
    bench.work()
    assert bench.counts("a") == (0, 3, 2)


def test_turns_go_by_age_and_the_taps_frames_are_first() -> None:
    queues = FrameQueues()
    messages = [inline("a", "flat"), inline("a", "dark"), inline("a", "projection"), inline("a", "flat")]
    for message in (*messages, inline("a", "projection", tapped=True)):
        queues.add(message)
    order = []
    while (queue := queues.next()) is not None:
        part, _ = queues.take(queue, 0)
        order.append((part.kind, part.tapped) if isinstance(part, InlineFrames) else None)
    assert order == [("projection", True), *((message.kind, False) for message in messages)]


def test_that_frames_do_not_come_is_told_once_for_each_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.start("a")
    for kind in ("dark", "projection"):
        bench.session.submit(filed("a", kind, tmp_path / f"{kind}.h5", 1))
    bench.work()
    for _ in range(3):
        for queue in bench.intake._feeds["a"].queues._all:
            queue.moved_s -= 2 * LONG_S
        bench.work()
    told = [record.getMessage() for record in caplog.records if "could be read for" in record.getMessage()]
    assert [text.split(" could")[0] for text in told] == ["no dark", "no projection"]


def test_what_could_not_be_read_is_told_once_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(patience_s=0.0)
    bench.start("a")
    bench.session.submit(filed("a", "dark", write(tmp_path / "d.h5", "dark", 5), 6))
    bench.session.submit(filed("a", "projection", tmp_path / "missing.h5", 3 * ANGLES))
    bench.stop("a")
    bench.work()
    bench.work()
    told = [record.getMessage() for record in caplog.records if "could not be read" in record.getMessage()]
    assert [text.split(":")[0] for text in told] == ["1 frame could not be read", "270 frames could not be read"]
    assert bench.session.status.frames_lost == 1 + 3 * ANGLES
    assert bench.counts("a") == (5, 0, 0)


def test_what_is_read_after_a_runs_end_is_late_for_nothing(tmp_path: Path) -> None:
    bench = Bench()
    bench.start("a")
    bench.session.submit(filed("a", "flat", write(tmp_path / "f.h5", "flat", 80), 80))
    bench.take()
    feed = bench.intake._feeds["a"]
    for queue in feed.queues._all:
        for entry in queue:
            entry.came_s -= LONG_S
    assert feed.lag_s >= LONG_S
    bench.stop("a")
    bench.take()
    bench.intake._look_at_backlog()
    assert (bench.session.status.backlog, feed.lag_s, bench.session.shedding.level) == (80, 0.0, 0)


# ── and the next run ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_that_only_waits_for_a_file_holds_back_nobody(tmp_path: Path) -> None:
    bench = Bench()
    bench.start("a")
    bench.session.submit(filed("a", "projection", tmp_path / "never.h5", ANGLES))
    bench.stop("a")
    bench.start("b")
    bench.session.submit(inline("b", "flat", 5))
    bench.work()
    assert bench.counts("b") == (0, 5, 0)


@pytest.mark.parametrize("many", [False, True])
def test_a_run_is_held_back_only_while_there_is_room_for_its_frames(many: bool) -> None:
    bench = Bench(queue_frames=100)
    bench.start("a")
    bench.session.submit(inline("a", "flat", 5))
    bench.stop("a")
    bench.start("b")
    n = round(100 * HELD_BACK) + many
    bench.session.submit(inline("b", "flat", n))
    bench.work()
    assert bench.run("a").drained
    assert bench.counts("b") == (0, n if many else 0, 0)


def test_a_run_without_a_frame_that_can_be_used_takes_nothing_away() -> None:
    bench = Bench()
    bench.start("a")
    bench.session.submit(inline("a", "flat", 5))
    bench.work()
    bench.start("b")
    bench.session.submit(inline("b", "projection", tapped=True, awaits=True))
    bench.work()
    assert bench.session.run is bench.run("a")


def test_frames_that_wait_when_their_run_is_closed_make_room_and_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    bench.start("a")
    bench.session.submit(inline("a", "flat", 5))
    bench.work()
    bench.session.submit(inline("a", "projection", 7))
    bench.take()
    live = bench.run("a")
    live.stop = RunStop(run_uid="a", time_s=1.0, exit_status="fail")
    bench.session.close_run(live)
    bench.intake._forget_closed()
    assert bench.session.inbox.fill == 0
    assert live.frames_lost == 7
    assert not bench.intake._feeds["a"].is_waiting
    with caplog.at_level(logging.WARNING):
        assert "came after it had ended" in caplog.text
