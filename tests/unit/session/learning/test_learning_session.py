"""Learning in a session, with its threads: what is published, what is told, and what odd data do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_run import ANGLES, TOMO, emit_run, frames

from bluesky_jit import JITCallback, Session
from bluesky_jit.learn.registry import Registry
from bluesky_jit.messages import Control, SessionStatus, SinkMessage, Update
from bluesky_jit.session.learning.judging import FailedJudgement
from bluesky_jit.session.learning.learner import Learner
from bluesky_jit.session.slices_stage import Slices
from bluesky_jit.settings import Settings, load_settings

SOON_S = 60.0


@dataclass
class RecordingSink:
    messages: list[SinkMessage] = field(default_factory=list)

    def publish(self, message: SinkMessage) -> None:
        self.messages.append(message)

    def close(self) -> None:
        pass

    def updates(self, name: str, kind: str) -> list[Update]:
        updates = [message for message in self.messages if isinstance(message, Update)]
        return [update for update in updates if (update.slice_name, update.kind) == (name, kind)]


@pytest.fixture(scope="module")
def streams() -> dict[str, np.ndarray]:
    return frames(turns=3, photons=600)


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show denoised slices from the first weights on: how good they are is not what these tests are about."""
    monkeypatch.setattr(Learner, "ready", property(lambda learner: learner.weights is not None))


def quick(**learn: Any) -> Settings:
    return load_settings(
        environment={},
        learn={"buffer": 160, "patch": 16, **learn},
        slices={"updates_per_s": 50.0},
        intake={"queue_frames": 4096},
    )


def finished(uid: str) -> Callable[[SessionStatus], bool]:
    return lambda status: status.run_uid == uid and status.state == "idle"


def run_until(
    session: Session, streams: dict[str, np.ndarray], condition: Callable[[SessionStatus], bool], **how: Any
) -> str:
    """Emit a run that waits for a condition before its last projection, and wait for its end."""

    def between(number: int) -> None:
        if number == len(streams["primary"]) - 2:
            assert session.wait_for(condition, SOON_S), session.status.learning

    uid = emit_run(JITCallback(session), streams, between=between, **how)
    assert session.wait_for(finished(uid), SOON_S)
    return uid


def test_figures_of_unseen_projections_and_of_the_residual_reach_the_status(streams: dict) -> None:
    with Session(quick(), sinks=[]) as session:

        def between(number: int) -> None:
            if number == ANGLES + 5:
                assert session.wait_for(lambda status: status.learning.ready, SOON_S), session.status.learning
            if number == len(streams["primary"]) - 2:
                judged = session.wait_for(lambda status: not np.isnan(status.learning.whole_slice), SOON_S)
                assert judged, session.status.learning

        emit_run(JITCallback(session), streams, between=between)
        learning = session.status.learning
    assert learning.unseen < 0.8
    assert learning.whole_slice < 0.85
    assert learning.residual_variance == pytest.approx(1.0, abs=0.3)
    assert abs(learning.residual_correlation) < 0.4
    assert learning.residual_verdict
    assert learning.buffered == 160


def test_the_doubt_of_the_horizontal_slice_is_an_image_of_its_own(streams: dict, lenient: None) -> None:
    sink = RecordingSink()
    fine = quick().changed({"slices": {"voxel_mm": 0.5}})
    with Session(fine, sinks=[sink]) as session:
        run_until(session, streams, lambda _: session.latest("XY", "doubt") is not None)
    doubts = sink.updates("XY", "doubt")
    raw = sink.updates("XY", "raw")[-1]
    assert doubts[-1].grid == raw.grid
    assert doubts[-1].image.shape == raw.image.shape
    assert doubts[-1].preset == "unet-fast"
    assert doubts[-1].weights_step > 0
    known = doubts[-1].image[np.isfinite(doubts[-1].image)]
    assert known.size > 0.5 * raw.image.size
    assert known.min() >= 0
    assert sink.updates("XZ", "doubt") == []


@pytest.mark.parametrize("preset", ["fast-z3", "fast-t3"])
def test_raw_denoised_and_what_is_said_of_them_are_of_one_moment(streams: dict, lenient: None, preset: str) -> None:
    sink = RecordingSink()
    spacing = 20 if preset == "fast-t3" else 0
    with Session(quick(preset=preset, frame_spacing=20), sinks=[sink]) as session:
        run_until(session, streams, lambda _: session.latest("XY", "denoised") is not None)
        denoised, newest = session.latest("XY", "denoised"), session.run
        raw = session.latest("XY", "raw")
        assert newest is not None
        frames = newest.reconstruction.sequences((raw.grid,)).images[0]  # type: ignore[union-attr]
    assert raw is not None
    assert denoised is not None
    assert raw.image.shape == denoised.image.shape
    assert (raw.number, raw.angles, raw.frame_time_s) == (denoised.number, denoised.angles, denoised.frame_time_s)
    assert raw.frame_time_s == pytest.approx(1.79e9 + len(streams["primary"]) - 1 - spacing)
    assert raw.angles.last_id == len(streams["primary"]) - 1 - spacing
    assert raw.image == pytest.approx(frames[len(frames) // 2], abs=1e-5)
    assert denoised.latency_ms == pytest.approx((denoised.made_time_s - raw.frame_time_s) * 1e3)


def test_raw_slices_are_the_newest_ones_while_nothing_is_denoised(streams: dict) -> None:
    sink = RecordingSink()
    with Session(quick(preset="t3", frame_spacing=20), sinks=[sink]) as session:
        uid = emit_run(JITCallback(session), streams)
        assert session.wait_for(finished(uid), SOON_S)
        raw = session.latest("XY", "raw")
    assert raw is not None
    assert raw.angles.last_id == len(streams["primary"]) - 1


def test_what_was_learned_is_kept_when_the_run_has_ended(streams: dict, lenient: None, tmp_path: Path) -> None:
    with Session(quick(registry=str(tmp_path)), sinks=[]) as session:
        uid = run_until(session, streams, lambda status: status.learning.step > 60)
        assert session.wait_for(lambda _: len(Registry(tmp_path).entries()) == 1, SOON_S)
    [entry] = Registry(tmp_path).entries()
    assert entry.fingerprint.run_uid == uid


def test_a_segmentation_is_published_when_asked_for(streams: dict, lenient: None) -> None:
    with Session(quick(segment=True), sinks=[]) as session:
        run_until(session, streams, lambda _: session.latest("XY", "segmentation") is not None)
        segmentation, raw = session.latest("XY", "segmentation"), session.latest("XY", "raw")
    assert segmentation is not None
    assert raw is not None
    assert segmentation.image.shape == raw.image.shape
    assert 0 <= segmentation.image.min() <= segmentation.image.max() <= 1


# ── controls ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_flush_empties_the_buffer(streams: dict) -> None:
    with Session(quick(), sinks=[]) as session:

        def flush(number: int) -> None:
            if number == ANGLES + 10:
                assert session.wait_for(lambda status: status.learning.step > 20, SOON_S)
                session.control(Control(name="Learning:Pause", value=True))
                session.control(Control(name="Learning:Flush", value=True))
                assert session.wait_for(lambda status: status.learning.buffered <= 32, SOON_S)
                assert session.status.learning.step > 20

        emit_run(JITCallback(session), streams, between=flush)


@pytest.mark.parametrize("control", ["Learning:Flush", "Learning:Reset"])
def test_there_is_nothing_to_flush_or_to_reset_without_a_run(control: str) -> None:
    with Session(quick(), sinks=[]) as session, pytest.raises(ValueError, match=f"{control} was asked for"):
        session.control(Control(name=control, value=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_position_that_is_not_a_number_is_refused(value: float) -> None:
    with Session(quick(), sinks=[]) as session:
        with pytest.raises(ValueError, match=r"XY:Position was given .*: give a number"):
            session.control(Control(name="XY:Position", value=value))
        assert session.positions_mm["XY"] == 0.0


# ── odd data ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "what"), [(ValueError, "pairs were left out"), (FailedJudgement, "what was learned could not be judged")]
)
def test_what_cannot_be_learned_from_or_judged_is_told_once_and_slices_go_on(
    streams: dict, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: type, what: str
) -> None:
    calls: list[int] = []

    def refuse(learner: Learner) -> bool:
        calls.append(1)
        raise kind(f"{len(calls)} of 400 values of u are not finite: look for dead flats")

    monkeypatch.setattr(Learner, "train", refuse)
    with caplog.at_level(logging.WARNING, "bluesky_jit.session.wiring"), Session(quick(), sinks=[]) as session:
        uid = run_until(session, streams, lambda _: len(calls) > 3)
        assert session.status.run_uid == uid
        assert session.latest("XY", "raw") is not None
        assert session.status.state == "idle"
    told = [record for record in caplog.records if what in record.getMessage()]
    assert len(told) == 1


def test_where_denoising_fails_slices_are_raw_and_it_is_told_once(
    streams: dict, lenient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(slices: Slices, weights: object, slabs: object) -> None:
        if weights is not None:
            raise RuntimeError("no memory for the network")

    monkeypatch.setattr(Slices, "_denoised", refuse)
    with Session(quick(), sinks=[]) as session:
        run_until(session, streams, lambda status: "no memory for the network" in status.message)
        assert session.latest("XY", "raw") is not None
        assert session.status.state == "idle"
        assert not any(stage.failures for stage in session._stages)


def test_frames_that_are_all_alike_give_slices_and_no_failure(streams: dict) -> None:
    alike = {**streams, "primary": np.full_like(streams["primary"], 300)}
    with Session(quick(), sinks=[]) as session:
        uid = emit_run(JITCallback(session), alike)
        assert session.wait_for(finished(uid), SOON_S)
        assert session.latest("XY", "raw") is not None
        assert not session.learning_is_lost


def test_frames_that_are_not_numbers_are_left_out_and_the_rest_is_learned_from(streams: dict) -> None:
    primary = streams["primary"].astype(np.float32)
    primary[ANGLES + 5] = np.nan
    with Session(quick(), sinks=[]) as session:
        run_until(session, {**streams, "primary": primary}, lambda status: status.learning.step > 20)
        assert "not finite" in session.status.message
        assert not session.learning_is_lost


def test_a_window_of_three_projections_is_refused_in_words_and_the_session_lives(streams: dict) -> None:
    tomo = {**TOMO, "n_angles_per_rotation": 3}
    few = {**streams, "primary": streams["primary"][:9]}
    with Session(quick(), sinks=[]) as session:
        uid = emit_run(JITCallback(session), few, tomo=tomo)
        assert session.wait_for(finished(uid), SOON_S)
        assert "each split needs at least two projections" in session.status.message
        assert session.status.state == "idle"
        uid = emit_run(JITCallback(session), streams)
        assert session.wait_for(finished(uid), SOON_S)
        assert session.latest("XY", "raw") is not None


@pytest.mark.parametrize(
    ("learn", "remedy"),
    [
        ({"preset": "unet-slow"}, "unet-slow"),
        ({"preset": "fast-t3", "frame_spacing": 61}, "give a multiple of learn.splits"),
        ({"preset": "auto", "splits": 4, "frame_spacing": 62}, "give a multiple of learn.splits"),
    ],
)
def test_settings_that_no_run_could_be_learned_with_are_refused_at_the_start(learn: dict, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        Session(quick(**learn), sinks=[]).start()
