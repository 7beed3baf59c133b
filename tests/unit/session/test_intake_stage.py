"""Intake: every run has its frames and its end, whatever the files and the metadata are like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from filed_frames import filed_frames
from simulated_run import ANGLES, TOMO, emit_run, frames

from bluesky_jit import JITCallback, Session
from bluesky_jit.messages import Asset, FrameKind, RunStart, RunStop, SinkMessage, Update
from bluesky_jit.session.intake_stage import Intake
from bluesky_jit.settings import load_settings

SOON_S = 30.0


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

    def updates(self, uid: str) -> list[Update]:
        return [message for message in self.messages if isinstance(message, Update) and message.run_uid == uid]


@pytest.fixture(scope="module")
def streams() -> dict[str, np.ndarray]:
    return frames(turns=1)


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def session(sink: Sink) -> Iterator[Session]:
    settings = load_settings(
        environment={}, learn={"enabled": False}, intake={"queue_frames": 4096, "file_patience_s": 0.2}
    )
    with Session(settings, sinks=[sink]) as running:
        yield running


def wait_until_finished(session: Session, uid: str) -> None:
    assert session.wait_for(lambda status: status.run_uid == uid and status.state == "idle", SOON_S)


def test_runs_that_follow_at_once_all_have_their_last_slices_and_their_end(
    session: Session, sink: Sink, streams: dict
) -> None:
    callback = JITCallback(session)
    uids = [emit_run(callback, streams) for _ in range(4)]
    wait_until_finished(session, uids[-1])
    session.stop()
    assert [stop.run_uid for stop in sink.ends()] == uids
    for stop in sink.ends():
        final = sink.updates(stop.run_uid)[-1]
        assert sink.messages.index(final) < sink.messages.index(stop)
        assert final.angles.last_id == ANGLES - 1


def test_a_run_whose_stop_never_came_takes_nothing_from_the_next(session: Session, sink: Sink, streams: dict) -> None:
    callback = JITCallback(session)
    lost = emit_run(lambda name, document: None if name == "stop" else callback(name, document), streams)
    uid = emit_run(callback, streams)
    wait_until_finished(session, uid)
    session.stop()
    assert [(stop.run_uid, stop.exit_status) for stop in sink.ends()] == [(uid, "success"), (lost, "abort")]
    assert sink.updates(lost)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pixel_mm": "wide"}, "tomo.pixel_mm is 'wide' in the run's metadata: give a number"),
        ({"pixel_mm": [1.0]}, r"tomo.pixel_mm is [1.0] in the run's metadata: give a number"),
        ({"pixel_mm": -1}, "pixel_mm is -1"),
        ({"n_angles_per_rotation": [90]}, "tomo.n_angles_per_rotation is [90]"),
        ({"n_angles_per_rotation": 1}, "the run gives 1 angles a turn"),
        ({"geometry": ["cone"]}, "tomo.geometry is ['cone']"),
    ],
)
def test_metadata_that_makes_no_sense_is_named_and_the_next_run_works(
    session: Session, streams: dict, changes: dict[str, Any], words: str
) -> None:
    callback = JITCallback(session)
    uid = emit_run(callback, streams, tomo={**TOMO, **changes})
    wait_until_finished(session, uid)
    assert words in session.status.message
    uid = emit_run(callback, streams)
    wait_until_finished(session, uid)
    assert session.latest("XY", "raw") is not None
    assert session.status.message == ""


def test_degrees_that_are_called_radians_are_told_once_and_their_frames_left_out(
    session: Session, sink: Sink, streams: dict, caplog: pytest.LogCaptureFixture
) -> None:
    callback = JITCallback(session)

    def mislabelled(name: str, document: dict[str, Any]) -> None:
        if name == "descriptor":
            document["data_keys"]["theta"]["units"] = "rad"
        callback(name, document)

    uid = emit_run(mislabelled, streams)
    wait_until_finished(session, uid)
    told = [record.getMessage() for record in caplog.records if "degrees taken for radians" in record.getMessage()]
    assert len(told) == 1
    assert "correct the units of the angle's data key" in told[0]
    assert all(update.angles.count <= 8 for update in sink.updates(uid))


class FiledRun:
    """Submit a run whose frames are in HDF5 files, one a kind."""

    def __init__(self, session: Session, folder: Path) -> None:
        self._session = session
        self._folder = folder
        session.submit(RunStart(run_uid="filed", scan_id=1, plan_name="", time_s=0.0, tomo=TOMO))

    def write(self, name: str, counts: np.ndarray, *, angles: int | None = None) -> None:
        with h5py.File(self._folder / f"{name}.h5", "w") as file:
            file["image"] = counts
            file["angle"] = np.arange(len(counts) if angles is None else angles) * 2 * np.pi / ANGLES

    def announce(self, name: str, kind: FrameKind, n: int) -> None:
        def asset(dataset: str) -> Asset:
            uri = (self._folder / f"{name}.h5").as_uri()
            return Asset(uri=uri, dataset=dataset, first=0, count=n, swmr=False)

        self._session.submit(
            filed_frames(
                asset("image"), run_uid="filed", kind=kind, angle=asset("angle") if kind == "projection" else None
            )
        )

    def end(self) -> None:
        self._session.submit(RunStop(run_uid="filed", time_s=1.0, exit_status="success"))
        wait_until_finished(self._session, "filed")


def test_a_file_that_cannot_be_read_costs_its_own_frames_only(session: Session, streams: dict, tmp_path: Path) -> None:
    run = FiledRun(session, tmp_path)
    run.write("flats", streams["flats"])
    run.write("primary", streams["primary"])
    run.announce("darks", "dark", 5)
    run.announce("flats", "flat", 20)
    run.announce("primary", "projection", ANGLES)
    run.end()
    status = session.status
    assert (status.frames_lost, status.darks, status.flats, status.projections) == (5, 0, 20, ANGLES)
    assert "5 frames could not be read" in status.message
    assert "darks.h5" in status.message
    assert session.latest("XY", "raw") is not None


def test_a_damaged_file_costs_its_own_frames_only(session: Session, streams: dict, tmp_path: Path) -> None:
    run = FiledRun(session, tmp_path)
    for name in ("darks", "flats", "primary"):
        run.write(name, streams[name])
    whole = (tmp_path / "darks.h5").read_bytes()
    (tmp_path / "darks.h5").write_bytes(whole[: len(whole) // 2])
    run.announce("darks", "dark", 5)
    run.announce("flats", "flat", 20)
    run.announce("primary", "projection", ANGLES)
    run.end()
    assert (session.status.frames_lost, session.status.projections) == (5, ANGLES)


def test_rows_that_only_some_columns_have_are_left_out(session: Session, streams: dict, tmp_path: Path) -> None:
    run = FiledRun(session, tmp_path)
    run.write("flats", streams["flats"])
    run.write("primary", streams["primary"][:20], angles=17)
    run.announce("flats", "flat", 20)
    run.announce("primary", "projection", 25)
    run.end()
    assert (session.status.projections, session.status.frames_lost) == (17, 8)


def test_a_pause_before_a_file_appears_is_no_reason_for_alarm(tmp_path: Path) -> None:
    """Only the time that a message itself has waited counts, not the pause before it came."""
    session = Session(load_settings(environment={}, intake={"file_patience_s": 60.0}), sinks=[])
    intake = Intake(session)
    intake.handle(RunStart(run_uid="r", scan_id=1, plan_name="", time_s=0.0, tomo=TOMO))
    feed = intake._feeds["r"]
    image = Asset(uri=f"file://localhost{tmp_path}/later.h5", dataset="/data", first=0, count=1, swmr=True)
    message = filed_frames(image, run_uid="r", kind="dark")
    darks = feed.queues.of(message)
    darks.moved_s -= 100.0
    intake.handle(message)
    intake.step()
    assert session.status.message == ""
    darks.moved_s -= 100.0
    intake.step()
    assert "no dark could be read for 60 s" in session.status.message
    assert "later.h5" in session.status.message


@pytest.mark.parametrize("error", [OSError("the folder is gone"), RuntimeError("no such home"), MemoryError()])
def test_when_nothing_can_be_learned_the_reason_is_told_and_no_frame_is_lost(
    streams: dict, sink: Sink, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("bluesky_jit.session.run.Learner", refuse)
    with Session(load_settings(environment={}, intake={"queue_frames": 4096}), sinks=[sink]) as session:
        uid = emit_run(JITCallback(session), streams)
        wait_until_finished(session, uid)
        status, run = session.status, session.run
    assert run is not None
    assert run.learning_problem == f"nothing is learned here, slices stay raw: {str(error) or 'no memory'}"
    assert status.frames_lost == 0
    assert status.darks == len(streams["darks"])


def test_a_folder_in_a_home_that_nobody_has_costs_learning_only(streams: dict, sink: Sink) -> None:
    settings = load_settings(
        environment={}, intake={"queue_frames": 4096}, learn={"checkpoint_folder": "~nobody-of-that-name/x"}
    )
    with Session(settings, sinks=[sink]) as session:
        uid = emit_run(JITCallback(session), streams)
        wait_until_finished(session, uid)
        status, run = session.status, session.run
    assert run is not None
    assert "home" in run.learning_problem
    assert status.frames_lost == 0
