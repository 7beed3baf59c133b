"""Frames of the tap that find no room in the inbox: records bring them, or they are counted as lost and it is said."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from simulated_run import ANGLES, TOMO

from bluesky_jit import Session
from bluesky_jit.messages import Asset, AssetFrames, InlineFrames, RunStart, RunStop
from bluesky_jit.session.intake_stage import Intake
from bluesky_jit.session.run import LiveRun
from bluesky_jit.settings import load_settings

SHAPE = (6, 8)
N, ROOM = 10, 4
ANGLES_RAD = np.arange(N) * 2 * np.pi / ANGLES
IDS, TIMES_S = 100 + np.arange(N), 10.0 + np.arange(N)
COUNTS = np.broadcast_to((5000 + np.arange(N))[:, None, None], (N, *SHAPE)).astype(np.uint16)


def tapped(number: int, *, awaits: bool) -> InlineFrames:
    """Return a frame of the tap; awaits: it does not say at what angle it was taken."""
    one = slice(number, number + 1)
    return InlineFrames(
        run_uid="a",
        kind="projection",
        counts=COUNTS[one],
        unique_ids=IDS[one],
        frame_times_s=TIMES_S[one],
        angles_rad=None if awaits else ANGLES_RAD[one],
        angle_source="frame attribute",
        tapped=True,
        awaits_documents=awaits,
    )


def recorded(path: Path) -> AssetFrames:
    """Write all frames to a file, and return what documents tell of it."""
    with h5py.File(path, "w", libver="latest") as file:
        file["image"], file["angle"], file["id"], file["time"] = COUNTS, ANGLES_RAD, IDS, TIMES_S

    def column(dataset: str) -> Asset:
        return Asset(uri=path.as_uri(), dataset=dataset, first=0, count=N, swmr=True)

    return AssetFrames(
        run_uid="a",
        kind="projection",
        image=column("image"),
        angle=column("angle"),
        unique_id=column("id"),
        frame_time=column("time"),
        angle_scale=1.0,
        angles_rad=None,
        angle_source="same stream",
        document_time_s=0.0,
    )


class Bench:
    """A session without threads whose inbox has room for a few frames, and whose intake works when it is told to."""

    def __init__(self) -> None:
        settings = load_settings(environment={}, learn={"enabled": False}, intake={"queue_frames": ROOM, "pva": "off"})
        self.session = Session(settings, sinks=[])
        self.intake = Intake(self.session)
        self.session.submit(RunStart(run_uid="a", scan_id=1, plan_name="", time_s=0.0, tomo=TOMO))
        self.work()

    def work(self) -> None:
        while (message := self.session.inbox.take(0)) is not None:
            self.intake.handle(message)
        self.intake.step()
        while self.intake._pause_s() == 0:
            self.intake.step()

    def end(self) -> LiveRun:
        run = self.session.runs["a"]
        self.session.submit(RunStop(run_uid="a", time_s=99.0, exit_status="success"))
        self.work()
        return run


@pytest.mark.parametrize("first", ["documents", "frames"])
@pytest.mark.parametrize("awaits", [False, True])
def test_frames_that_find_no_room_come_from_the_runs_records(tmp_path: Path, first: str, awaits: bool) -> None:
    bench, record = Bench(), recorded(tmp_path / "x.h5")
    if first == "documents":
        bench.session.submit(record)
    for number in range(N):
        bench.session.submit(tapped(number, awaits=awaits))
    if first == "frames":
        bench.session.submit(record)
    ledger = bench.end().frames.ledger
    assert (ledger.received, ledger.missing, ledger.lost) == (N, 0, 0)
    # Frames that do not say what they are have not come by the tap alone.
    assert ledger.backfilled == (0 if awaits else N - ROOM)
    assert "PVA" not in bench.session.status.message


@pytest.mark.parametrize(
    ("awaits", "received", "words"),
    [
        (False, ROOM, f"{N - ROOM} frames came by PVA faster than they could be used, and no record"),
        (True, 0, f"{N} frames that came by PVA did not say what they are"),
    ],
)
def test_frames_that_find_no_room_and_that_no_record_brings_are_lost_and_it_is_told(
    awaits: bool, received: int, words: str
) -> None:
    bench = Bench()
    for number in range(N):
        bench.session.submit(tapped(number, awaits=awaits))
    ledger = bench.end().frames.ledger
    assert (ledger.received, ledger.missing, ledger.lost) == (received, N - received, N - received)
    assert words in bench.session.status.message


def test_room_is_given_back_once_frames_are_used() -> None:
    bench = Bench()
    for number in range(N):
        bench.session.submit(tapped(number, awaits=False))
        bench.work()
    ledger = bench.end().frames.ledger
    assert (ledger.received, ledger.tapped, ledger.lost, bench.session.inbox.fill) == (N, N, 0, 0.0)
