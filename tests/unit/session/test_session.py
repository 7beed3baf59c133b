"""The session: documents in, slices and figures out, a clear message for what goes wrong, and the next run works."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from recorder import filed_run
from simulated_run import ANGLES, GEOMETRY, PHANTOM, TOMO, emit_run, frames

from bluesky_jit import JITCallback, Session
from bluesky_jit.learn.quality.scores import psnr
from bluesky_jit.learn.trainer import Trainer
from bluesky_jit.learn.weights import Weights
from bluesky_jit.messages import (
    Control,
    Pairs,
    Problem,
    RunOpened,
    RunStart,
    RunStop,
    SessionStatus,
    SinkMessage,
    Update,
)
from bluesky_jit.session.couplings import Refused
from bluesky_jit.session.run import LiveRun
from bluesky_jit.session.slices_stage import Slices
from bluesky_jit.settings import load_settings

SOON_S = 30.0


@dataclass
class RecordingSink:
    """Keep what is published."""

    messages: list[SinkMessage] = field(default_factory=list)
    closed: bool = False

    def publish(self, message: SinkMessage) -> None:
        self.messages.append(message)

    def close(self) -> None:
        self.closed = True

    def of(self, kind: type) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind)]


class BrokenSink:
    """Fail at every message."""

    def publish(self, message: SinkMessage) -> None:
        raise OSError("the disk is full")

    def close(self) -> None:
        pass


def settings(**changes: dict[str, Any]) -> Any:
    quick = {"learn": {"buffer": 160, "patch": 16}, "slices": {"updates_per_s": 50.0}, "intake": {"queue_frames": 2048}}
    for section, values in changes.items():
        quick[section] = {**quick.get(section, {}), **values}
    return load_settings(environment={}, **quick)


@pytest.fixture(scope="module")
def streams() -> dict[str, np.ndarray]:
    return frames(turns=2, photons=600)


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


@pytest.fixture
def session(sink: RecordingSink) -> Iterator[Session]:
    with Session(settings(learn={"enabled": False}), sinks=[sink]) as running:
        yield running
    assert sink.closed


def finished(uid: str) -> Callable[[SessionStatus], bool]:
    return lambda status: status.run_uid == uid and status.state == "idle"


def last(sink: RecordingSink, name: str, kind: str) -> Update:
    return [update for update in sink.of(Update) if (update.slice_name, update.kind) == (name, kind)][-1]


def test_a_run_ends_with_slices_in_physical_units(session: Session, sink: RecordingSink, streams: dict) -> None:
    uid = emit_run(JITCallback(session), streams)
    assert session.wait_for(finished(uid), SOON_S)
    for name in ("XY", "XZ", "YZ"):
        update = session.latest(name, "raw")
        assert update is not None
        truth = PHANTOM.attenuation(update.grid, 0.0, oversample=2)
        inside = np.hypot(*(update.grid.points()[..., axis] for axis in (0, 1))) < 0.8 * GEOMETRY.radius_mm
        assert np.mean(update.image[inside]) == pytest.approx(np.mean(truth[inside]), rel=0.06)
        assert np.corrcoef(update.image[inside], truth[inside])[0, 1] > 0.6
        assert (update.angles.count, update.angles.source) == (ANGLES, "same stream")
    preview = session.latest("preview", "preview")
    assert preview is not None
    assert preview.image.ndim == 3


def test_what_is_published_says_where_it_comes_from(session: Session, sink: RecordingSink, streams: dict) -> None:
    uid = emit_run(JITCallback(session), streams)
    assert session.wait_for(finished(uid), SOON_S)
    session.stop()
    [opened] = sink.of(RunOpened)
    assert opened.start.run_uid == uid
    assert (opened.geometry.n_u, opened.geometry.n_v, opened.geometry.pixel_mm) == (64, 48, 1.0)
    [stop] = sink.of(RunStop)
    final = last(sink, "XY", "raw")
    assert sink.messages.index(final) < sink.messages.index(stop)
    assert final.run_uid == uid
    assert final.frame_time_s == pytest.approx(1.79e9 + 2 * ANGLES - 1)
    assert final.turn == 2
    status = sink.messages[sink.messages.index(stop) - 1]
    assert isinstance(status, SessionStatus)
    assert (status.darks, status.flats, status.projections, status.frames_lost) == (5, 20, 2 * ANGLES, 0)


def test_the_denoiser_learns_during_the_run_and_beats_the_raw_slice(sink: RecordingSink, streams: dict) -> None:
    with Session(settings(), sinks=[sink]) as session:

        def wait_at_the_end(number: int) -> None:
            if number == len(streams["primary"]) - 1:
                assert session.wait_for(lambda status: status.learning.ready and status.learning.step > 400, SOON_S)

        uid = emit_run(JITCallback(session), streams, between=wait_at_the_end)
        assert session.wait_for(finished(uid), SOON_S)
        raw, denoised = session.latest("XY", "raw"), session.latest("XY", "denoised")
        assert raw is not None
        assert denoised is not None
        assert denoised.number == raw.number
        assert denoised.weights_step > 0
        assert denoised.ready
        truth = PHANTOM.attenuation(raw.grid, 0.0, oversample=2)[0]
        ny, nx = truth.shape
        y, x = np.ogrid[:ny, :nx]
        # Within the jar's wall, which is thinner than two voxels here.
        inside = np.hypot(y - (ny - 1) / 2, x - (nx - 1) / 2) < 0.8 * nx / 2
        gain_db = psnr(denoised.image[0], truth, mask=inside) - psnr(raw.image[0], truth, mask=inside)
        assert gain_db > 2.0
        residual, labels = session.latest("XY", "residual"), session.latest("XY", "analysis")
        assert residual is not None
        assert labels is not None
        assert residual.image == pytest.approx(raw.image - denoised.image)
        assert set(np.unique(labels.image)) == {0.0, 1.0}


def test_nothing_is_shown_as_denoised_before_it_beats_the_raw_slice(sink: RecordingSink, streams: dict) -> None:
    with Session(settings(), sinks=[sink]) as session:
        uid = emit_run(JITCallback(session), streams)
        assert session.wait_for(finished(uid), SOON_S)
    ready = [update.ready for update in sink.of(Update) if update.kind == "denoised"]
    assert all(ready)


@pytest.fixture
def waiting_session(sink: RecordingSink) -> Iterator[Session]:
    """A session that makes no slices without flats."""
    with Session(settings(learn={"enabled": False}, tomo={"without_flats": "wait"}), sinks=[sink]) as running:
        yield running


def test_a_run_without_flats_gives_one_clear_message_and_the_next_run_works(
    waiting_session: Session, streams: dict
) -> None:
    session = waiting_session
    callback = JITCallback(session)
    uid = emit_run(callback, {name: streams[name] for name in ("darks", "primary")})
    assert session.wait_for(finished(uid), SOON_S)
    assert "has no flats" in session.status.message
    assert session.status.severity == "MAJOR"
    assert session.latest("XY", "raw") is None
    uid = emit_run(callback, streams)
    assert session.wait_for(finished(uid), SOON_S)
    assert session.latest("XY", "raw") is not None
    assert session.status.message == ""


def test_the_flats_of_an_earlier_run_can_be_named(session: Session, streams: dict) -> None:
    callback = JITCallback(session)
    lender = emit_run(callback, {name: streams[name] for name in ("darks", "flats")})
    assert session.wait_for(finished(lender), SOON_S)
    uid = emit_run(callback, {"primary": streams["primary"]}, tomo={**TOMO, "dark_flat_uid": lender})
    assert session.wait_for(finished(uid), SOON_S)
    borrowed = session.latest("XY", "raw")
    own = emit_run(callback, streams)
    assert session.wait_for(finished(own), SOON_S)
    update = session.latest("XY", "raw")
    assert borrowed is not None
    assert update is not None
    assert (borrowed.flats, update.flats) == (f"run {lender}", "this run")
    assert borrowed.image == pytest.approx(update.image, abs=1e-6)


def test_flats_that_are_not_here_are_asked_for(waiting_session: Session, streams: dict) -> None:
    session = waiting_session
    run = {"primary": streams["primary"]}
    uid = emit_run(JITCallback(session), run, tomo={**TOMO, "dark_flat_uid": "3f2a91c0-unknown"})
    assert session.wait_for(finished(uid), SOON_S)
    assert "has no flats" in session.status.message
    assert session.latest("XY", "raw") is None


def test_flats_that_come_last_are_used(session: Session, streams: dict) -> None:
    uid = emit_run(JITCallback(session), {name: streams[name] for name in ("primary", "darks", "flats")})
    assert session.wait_for(finished(uid), SOON_S)
    update = session.latest("XY", "raw")
    assert update is not None
    truth = PHANTOM.attenuation(update.grid, 0.0)
    assert np.mean(update.image[truth > 0]) == pytest.approx(np.mean(truth[truth > 0]), rel=0.1)


def test_raw_slices_flow_when_nothing_can_be_learned(sink: RecordingSink, streams: dict) -> None:
    with Session(settings(learn={"patch": 200}), sinks=[sink]) as session:
        uid = emit_run(JITCallback(session), streams)
        assert session.wait_for(finished(uid), SOON_S)
        assert "nothing is learned here, slices stay raw" in session.status.message
        assert session.status.learning.reason == session.status.message
        assert session.latest("XY", "raw") is not None


def test_projections_that_never_came_are_counted(session: Session, streams: dict) -> None:
    uid = emit_run(JITCallback(session), streams, num_points=2 * ANGLES + 7)
    assert session.wait_for(finished(uid), SOON_S)
    assert session.status.frames_lost == 7
    assert f"7 of {2 * ANGLES + 7} projections" in session.status.message


def test_a_run_without_frames_says_where_they_were_looked_for(session: Session) -> None:
    uid = emit_run(JITCallback(session), {"baseline": np.zeros((1, 4, 4))})
    assert session.wait_for(finished(uid), SOON_S)
    assert "brought no frames: its streams are baseline" in session.status.message


def test_borrowed_flats_of_another_size_are_declined(session: Session, streams: dict) -> None:
    callback = JITCallback(session)
    small = {name: images[:, :20, :20] for name, images in streams.items()}
    lender = emit_run(callback, {name: small[name] for name in ("darks", "flats")})
    assert session.wait_for(finished(lender), SOON_S)
    uid = emit_run(callback, streams, tomo={**TOMO, "dark_flat_uid": lender})
    assert session.wait_for(finished(uid), SOON_S)
    assert "are of another size" in session.status.message
    update = session.latest("XY", "raw")
    assert update is not None
    assert update.flats == "this run"


def test_the_worst_problem_of_a_run_stays_on_show(session: Session) -> None:
    session.report(Problem(text="grave", severity="MAJOR"))
    session.report(Problem(text="slight"))
    assert session.status.message == "grave"


def test_an_aborted_run_says_so_and_the_next_run_works(session: Session, streams: dict) -> None:
    callback = JITCallback(session)
    short = {**streams, "primary": streams["primary"][:30]}
    uid = emit_run(callback, short, exit_status="abort", reason="the sample fell")
    assert session.wait_for(finished(uid), SOON_S)
    assert "'abort' after 30 projections: the sample fell" in session.status.message
    uid = emit_run(callback, streams)
    assert session.wait_for(finished(uid), SOON_S)
    assert session.status.message == ""


def test_missing_geometry_is_named_once_and_frames_are_counted(session: Session, streams: dict) -> None:
    tomo = {key: value for key, value in TOMO.items() if key != "pixel_mm"}
    uid = emit_run(JITCallback(session), streams, tomo=tomo)
    assert session.wait_for(finished(uid), SOON_S)
    assert "without pixel_mm" in session.status.message


def test_the_settings_fill_in_what_the_run_does_not_say(sink: RecordingSink, streams: dict) -> None:
    tomo = {key: value for key, value in TOMO.items() if key != "pixel_mm"}
    with Session(settings(learn={"enabled": False}, geometry={"pixel_mm": 1.0}), sinks=[sink]) as session:
        uid = emit_run(JITCallback(session), streams, tomo=tomo)
        assert session.wait_for(finished(uid), SOON_S)
        assert session.latest("XY", "raw") is not None


def test_frames_of_another_size_are_left_out_and_reported(session: Session, streams: dict) -> None:
    callback = JITCallback(session)
    odd = np.zeros((1, 20, 30), dtype=np.uint16)
    uid = emit_run(callback, {**streams, "projections": odd})
    assert session.wait_for(finished(uid), SOON_S)
    assert "20×30" in session.status.message
    assert session.status.frames_lost == 1
    assert session.latest("XY", "raw") is not None


def test_frames_that_do_not_fit_the_queue_are_counted_and_reported(sink: RecordingSink, streams: dict) -> None:
    session = Session(settings(intake={"queue_frames": 10}, learn={"enabled": False}), sinks=[sink])
    # Not started: nothing empties the queue.
    emit_run(JITCallback(session), streams)
    total = sum(len(images) for images in streams.values())
    queued = iter(lambda: session.inbox.take(0), None)
    assert sum(len(message) for message in queued if isinstance(message, Refused)) == total - 10
    assert "frames come faster" in session.status.message


def test_a_slice_can_be_moved(session: Session, streams: dict) -> None:
    uid = emit_run(JITCallback(session), streams)
    assert session.wait_for(finished(uid), SOON_S)
    session.control(Control(name="XY:Position", value=5.0))
    moved = threading.Event()

    def is_moved(_: SessionStatus) -> bool:
        update = session.latest("XY", "raw")
        if update is not None and update.grid.origin[2] == pytest.approx(5.0):
            moved.set()
        return moved.is_set()

    assert session.wait_for(is_moved, SOON_S)


def test_the_axis_can_be_moved(session: Session, streams: dict) -> None:
    uid = emit_run(JITCallback(session), streams)
    assert session.wait_for(finished(uid), SOON_S)
    before = session.latest("XY", "raw")
    session.control(Control(name="AxisOffset", value=2.0))
    assert session.wait_for(lambda status: status.update > (before.number if before else 0), SOON_S)
    after = session.latest("XY", "raw")
    assert session.status.axis_offset_mm == 2.0
    assert before is not None
    assert after is not None
    assert np.abs(after.image - before.image).max() > 0.1 * np.abs(before.image).max()


def test_learning_pauses_and_starts_afresh(sink: RecordingSink, streams: dict) -> None:
    with Session(settings(), sinks=[sink]) as session:
        seen: dict[str, int] = {}

        def act(number: int) -> None:
            if number == ANGLES + 10:
                assert session.wait_for(lambda status: status.learning.step > 50, SOON_S)
                session.control(Control(name="Learning:Pause", value=True))
                assert session.wait_for(lambda status: status.learning.reason.startswith("learning is paused"), SOON_S)
                seen["paused"] = session.status.learning.step
            if number == ANGLES + 20:
                session.control(Control(name="Learning:Reset", value=True))
                session.control(Control(name="Learning:Pause", value=False))
                assert session.wait_for(lambda status: 0 < status.learning.step < seen["paused"], SOON_S)

        uid = emit_run(JITCallback(session), streams, between=act)
        assert session.wait_for(finished(uid), SOON_S)


def test_a_pause_lasts_into_the_next_run(sink: RecordingSink, streams: dict) -> None:
    with Session(settings(), sinks=[sink]) as session:
        session.control(Control(name="Learning:Pause", value=True))
        assert session.status.learning.paused
        uid = emit_run(JITCallback(session), streams)
        assert session.wait_for(finished(uid), SOON_S)
        assert (session.status.learning.step, session.status.learning.paused) == (0, True)


def test_the_axis_cannot_be_moved_without_a_run(session: Session) -> None:
    with pytest.raises(ValueError, match="no run yet"):
        session.control(Control(name="AxisOffset", value=1.0))
    assert "no run yet" in session.status.message


def test_a_file_without_swmr_is_read_when_the_run_has_ended(sink: RecordingSink, tmp_path: Path) -> None:
    path = tmp_path / "frames.h5"
    with h5py.File(path, "w") as file:
        file["/entry/data/data"] = np.ones((8, 4, 6), dtype=np.uint16)
        file["/angle"] = np.arange(8) * 45.0
    held: list[tuple[str, Any]] = []
    columns, rows = (
        {"camera": "/entry/data/data", "camera_angle": "/angle"},
        {"camera": [(0, 8)], "camera_angle": [(0, 8)]},
    )
    quick = settings(learn={"enabled": False}, intake={"file_patience_s": 0.1})
    with Session(quick, sinks=[sink]) as session:
        callback = JITCallback(session)

        def emit(name: str, document: Any) -> None:
            (held.append if name == "stop" else lambda args: callback(*args))((name, document))

        uid = filed_run(emit, path, rows, columns=columns, swmr=False)
        assert session.wait_for(lambda status: "written without SWMR" in status.message, SOON_S)
        assert session.status.projections == 0
        callback(*held[0])
        assert session.wait_for(finished(uid), SOON_S)
        assert session.status.projections == 8


def test_weights_of_another_run_are_not_taken_for_this_ones(session: Session, streams: dict) -> None:
    """Two runs reach the same training step with different weights."""
    stage = Slices(Session(settings(), sinks=[]))
    first, second = (trained(seed) for seed in (1, 2))
    runs = []
    for weights in (first, second):
        run = LiveRun(RunStart(run_uid="r", scan_id=1, plan_name="", time_s=0.0, tomo=TOMO), settings())
        run.learner = SimpleNamespace(weights=weights, ready=True)  # type: ignore[assignment]
        runs.append(run)
    image = np.random.default_rng(0).normal(0.02, 0.01, (1, 32, 32)).astype(np.float32)
    one, other = (stage._denoised(stage._weights_of(run), (image[None],)) for run in runs)
    assert first.step == second.step
    assert one is not None
    assert other is not None
    assert np.abs(one[0] - other[0]).max() > 1e-4


def trained(seed: int) -> Weights:
    rng = np.random.default_rng(0)
    u, v = (rng.normal(0.02, 0.01, (8, 1, 1, 16, 16)).astype(np.float32) for _ in range(2))
    trainer = Trainer("unet-fast", seed=seed)
    trainer.train_step(Pairs(u=u, v=v))
    return trainer.snapshot()


def test_a_preset_that_does_not_exist_is_refused_before_anything_is_started() -> None:
    session = Session(settings(learn={"preset": "unet-slow"}), sinks=None)
    threads = threading.active_count()
    with pytest.raises(ValueError, match="unet-slow"):
        session.start()
    assert threading.active_count() == threads


def test_a_control_that_does_not_exist_is_reported(session: Session) -> None:
    with pytest.raises(ValueError, match="Nothing is not a control"):
        session.control(Control(name="Nothing", value=1))
    assert "Nothing is not a control" in session.status.message


def test_a_sink_that_fails_does_not_harm_the_others(sink: RecordingSink, streams: dict) -> None:
    with Session(settings(learn={"enabled": False}), sinks=[BrokenSink(), sink]) as session:
        uid = emit_run(JITCallback(session), streams)
        assert session.wait_for(finished(uid), SOON_S)
        assert session.wait_for(
            lambda status: "BrokenSink could not publish: the disk is full" in status.message, SOON_S
        )
    assert last(sink, "XY", "raw").run_uid == uid
