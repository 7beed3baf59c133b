"""A session finds the rotation axis by itself, tells people, and moves it only when it may."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from analytic_balls import Ball, darks, flats, projections
from simulated_run import ANGLES, GEOMETRY, PHANTOM, TOMO, emit_run, frames

from bluesky_jit import JITCallback, Session
from bluesky_jit.messages import Control, RunOpened, RunStop, SessionStatus, SinkMessage, Update
from bluesky_jit.publish.linked_run import LinkedRun
from bluesky_jit.settings import load_settings
from bluesky_jit.tomo.geometry import ParallelGeometry
from bluesky_jit.tomo.live import FilteredBackprojection

SOON_S = 30.0
WRONG_MM = 3.0
"""The simulated axis is at 0, and a pixel is 1 mm."""
WRONG = {**TOMO, "axis_offset_mm": WRONG_MM}


@dataclass
class Sink:
    messages: list[SinkMessage] = field(default_factory=list)

    def publish(self, message: SinkMessage) -> None:
        self.messages.append(message)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def streams() -> dict[str, np.ndarray]:
    return frames(turns=2)


@contextmanager
def session_with(axis: str, sink: Sink | None = None, **tomo: Any) -> Iterator[Session]:
    settings = load_settings(
        environment={},
        tomo={"axis": axis, **tomo},
        learn={"enabled": False},
        slices={"updates_per_s": 50.0},
        intake={"queue_frames": 2048},
    )
    with Session(settings, sinks=[sink or Sink()]) as session:
        yield session


def finished(uid: str) -> Callable[[SessionStatus], bool]:
    return lambda status: status.run_uid == uid and status.state == "idle"


def run(session: Session, streams: dict[str, np.ndarray], **about: Any) -> Update:
    """Play a run to its end and return its last slice."""
    uid = emit_run(JITCallback(session), streams, **about)
    assert session.wait_for(finished(uid), SOON_S)
    update = session.latest("XY", "raw")
    assert update is not None
    return update


def off_truth(update: Update) -> float:
    """Return a slice's root-mean-square distance from the truth."""
    truth = PHANTOM.attenuation(update.grid, 0.0, oversample=2)
    return float(np.sqrt(np.mean((update.image - truth) ** 2)))


@pytest.mark.parametrize("axis", ["estimate", "track"])
@pytest.mark.parametrize("turns", [1, 2])
def test_slices_become_sharp_although_the_axis_was_given_wrongly(
    streams: dict[str, np.ndarray], axis: str, turns: int
) -> None:
    streams = {**streams, "primary": streams["primary"][: turns * ANGLES]}
    with session_with("given") as session:
        right, wrong = run(session, streams), run(session, streams, tomo=WRONG)
    with session_with(axis) as session:
        found = run(session, streams, tomo=WRONG)
        assert abs(session.status.axis_offset_mm) < 0.25
    assert abs(found.axis_offset_mm) < 0.25
    assert off_truth(wrong) > 1.2 * off_truth(right)
    assert off_truth(found) < 1.05 * off_truth(right)


EXTENDED = ParallelGeometry(n_u=200, n_v=48, pixel_mm=0.1, detector_u_mm=6.0, extended_field=True)
EXTENDED_TOMO = {
    **TOMO,
    "pixel_mm": EXTENDED.pixel_mm,
    "detector_u_mm": EXTENDED.detector_u_mm,
    "extended_field": True,
    "axis_offset_mm": 0.5,
}
MU = 0.02
BALLS = [Ball((0, 0, 0), 11, MU), Ball((4, 3, 0), 1.5, 2 * MU), Ball((-5, 1, 0), 1, MU), Ball((2, -6, 0), 1.2, -MU)]


@pytest.mark.parametrize("another", [False, True], ids=["alone", "the next run waits"])
def test_the_last_slices_of_an_extended_field_are_made_with_the_weights_of_the_axis_that_was_found(
    another: bool,
) -> None:
    """What comes after a run's end is in no record of it."""
    block = projections(EXTENDED, BALLS, np.arange(ANGLES) * 2 * np.pi / ANGLES)
    streams = {
        "darks": darks(EXTENDED).counts,
        "flats": flats(EXTENDED).counts,
        "primary": block.counts,
    }
    sink = Sink()
    with session_with("estimate", sink) as session:
        emit = JITCallback(session)
        uid = last = emit_run(emit, streams, tomo=EXTENDED_TOMO)
        if another:
            last = emit_run(emit, streams, tomo=EXTENDED_TOMO)
        assert session.wait_for(finished(last), SOON_S)
    of_the_run = [
        message for message in sink.messages if isinstance(message, Update | RunStop) and message.run_uid == uid
    ]
    assert isinstance(of_the_run[-1], RunStop)
    slices = [message for message in of_the_run if isinstance(message, Update) and message.slice_name == "XY"]
    assert abs(slices[-1].axis_offset_mm) < 0.25 * EXTENDED.pixel_mm
    points = slices[-1].grid.points()
    truth = sum(ball.attenuation(points) for ball in BALLS)
    inside = np.linalg.norm(points[..., :2], axis=-1) < 9
    assert (slices[-1].image - truth)[inside].std() < 0.2 * MU


def test_an_estimate_where_the_axis_cannot_be_is_told_and_the_axis_stays(
    streams: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(reconstruction: FilteredBackprojection, offset_mm: float) -> None:
        raise ValueError("the detector does not see it there: move the detector")

    monkeypatch.setattr(FilteredBackprojection, "set_axis_offset", refuse)
    with session_with("track") as session:
        assert run(session, streams, tomo=WRONG).axis_offset_mm == WRONG_MM
        status = session.status
    assert status.state == "idle"
    assert "mm and was not moved: the detector does not see it there" in status.message


def test_a_given_axis_stays_and_people_are_told_where_it_seems_to_be(streams: dict[str, np.ndarray]) -> None:
    with session_with("given") as session:
        update = run(session, streams, tomo=WRONG)
        status = session.status
    assert update.axis_offset_mm == WRONG_MM
    assert status.axis_estimate_mm == pytest.approx(0.0, abs=0.25)
    assert status.axis_column == pytest.approx(GEOMETRY.u_centre, abs=0.25)
    assert status.axis_confidence > 0.9
    assert "the rotation axis is estimated at" in status.message
    assert 'tomo.axis = "estimate"' in status.message


def test_a_right_axis_is_no_news(streams: dict[str, np.ndarray]) -> None:
    with session_with("given") as session:
        run(session, streams)
        assert session.status.message == ""
        assert session.status.axis_confidence > 0.9


def test_a_hand_on_the_axis_has_the_last_word(streams: dict[str, np.ndarray]) -> None:
    with session_with("track") as session:

        def move(number: int) -> None:
            if number == 10:
                assert session.wait_for(lambda status: status.projections > 5, SOON_S)
                session.control(Control(name="AxisOffset", value=2.0))

        update = run(session, streams, between=move)
        assert update.axis_offset_mm == 2.0
        assert "put it to AxisOffset" in session.status.message


def test_a_place_that_the_detector_does_not_see_is_refused_and_the_axis_goes_on_being_tracked(
    streams: dict[str, np.ndarray],
) -> None:
    with session_with("track") as session:

        def move(number: int) -> None:
            if number == 10:
                assert session.wait_for(lambda status: status.projections > 5, SOON_S)
                with pytest.raises(ValueError, match=r"correct axis_offset_mm \(1000\)"):
                    session.control(Control(name="AxisOffset", value=1000.0))

        assert run(session, streams, tomo=WRONG, between=move).axis_offset_mm == pytest.approx(0.0, abs=0.5)


def test_half_a_turn_is_enough_to_begin_with(streams: dict[str, np.ndarray]) -> None:
    half = {**streams, "primary": streams["primary"][: ANGLES // 2]}
    with session_with("estimate") as session:
        assert abs(run(session, half, tomo=WRONG).axis_offset_mm) < 0.5


def test_a_part_of_the_arc_moves_nothing_and_says_why(streams: dict[str, np.ndarray]) -> None:
    part = {**streams, "primary": streams["primary"][: ANGLES // 3]}
    with session_with("estimate") as session:
        assert run(session, part, tomo=WRONG).axis_offset_mm == WRONG_MM
        status = session.status
    assert (status.axis_confidence, math.isnan(status.axis_estimate_mm)) == (0.0, True)
    assert "turn by more than 180°" in status.axis_reason


def test_the_next_run_begins_with_its_own_axis(streams: dict[str, np.ndarray]) -> None:
    with session_with("estimate") as session:
        assert abs(run(session, streams, tomo=WRONG).axis_offset_mm) < 0.25
        part = {**streams, "primary": streams["primary"][: ANGLES // 3]}
        assert run(session, part, tomo={**TOMO, "axis_offset_mm": 1.5}).axis_offset_mm == 1.5


def test_the_record_of_a_run_tells_the_estimate(streams: dict[str, np.ndarray]) -> None:
    sink = Sink()
    with session_with("given", sink) as session:
        run(session, streams, tomo=WRONG)
    opened = next(message for message in sink.messages if isinstance(message, RunOpened))
    record = LinkedRun(opened, time_s=0.0)
    documents = []
    for message in sink.messages:
        if isinstance(message, SessionStatus):
            documents += record.status(message)
        elif isinstance(message, RunStop):
            documents += record.stop(message)
    assert opened.settings["tomo"]["axis"] == "given"
    last = [document for name, document in documents if name == "event"][-1]["data"]
    assert last["axis_offset_mm"] == WRONG_MM
    assert last["axis_estimate_mm"] == pytest.approx(0.0, abs=0.25)
    assert last["axis_confidence"] > 0.9


def test_a_doubtful_first_estimate_is_made_again_when_the_run_has_ended(streams: dict[str, np.ndarray]) -> None:
    """The window counts as complete some views before half a turn is over: the seam is then too wide to be sure."""
    half = {**streams, "primary": streams["primary"][: ANGLES // 2]}
    with session_with("estimate") as session:

        def wait_for_the_first(number: int) -> None:
            if number == ANGLES // 2 - 3:
                assert session.wait_for(lambda status: bool(status.axis_confidence or status.axis_reason), SOON_S)

        update = run(session, half, tomo=WRONG, between=wait_for_the_first)
        assert abs(update.axis_offset_mm) < 0.5
        assert session.status.axis_confidence > 0.8
