"""Flats that come late, are retaken, or never come: what stands in for them, and that everybody is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from played_run import PlayedRun
from simulated_run import ANGLES, GEOMETRY, PHANTOM, TOMO, emit_run, frames

from bluesky_jit import JITCallback, Session
from bluesky_jit.messages import RunStart, SessionStatus, Update
from bluesky_jit.session.kept_flats import RUNS_KEPT, KeptFlats
from bluesky_jit.settings import load_settings
from bluesky_jit.tomo.corrections.darkflat import DarkFlat

SOON_S = 30.0
SET_UP = {**TOMO, "image_key": "camera_image", "exposure_s": 0.02}
"""What says enough of a run for the flats of another to do."""


@pytest.fixture(scope="module")
def streams() -> dict[str, np.ndarray]:
    return frames(turns=1)


def settings(**sections: dict[str, Any]) -> Any:
    given = {"learn": {"enabled": False}, "intake": {"queue_frames": 4096, "file_patience_s": 0.2}}
    return load_settings(environment={}, **given | sections)


@pytest.fixture
def session() -> Iterator[Session]:
    with Session(settings(), sinks=[]) as running:
        yield running


def finished(uid: str) -> Callable[[SessionStatus], bool]:
    return lambda status: status.run_uid == uid and status.state == "idle"


def play(session: Session, images: dict[str, np.ndarray], **about: Any) -> Update:
    uid = emit_run(JITCallback(session), images, **about)
    assert session.wait_for(finished(uid), SOON_S)
    update = session.latest("XY", "raw")
    assert update is not None
    assert update.run_uid == uid
    return update


def without_flats(streams: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: streams[name] for name in ("darks", "primary")}


def test_a_run_without_flats_is_shown_with_those_of_the_last_run_of_the_same_set_up(
    session: Session, streams: dict
) -> None:
    lender = play(session, streams, tomo=SET_UP)
    assert (lender.flats, session.status.flats_used) == ("this run", "this run")
    borrowed = play(session, without_flats(streams), tomo=SET_UP)
    assert borrowed.flats == f"run {lender.run_uid} (borrowed)"
    status = session.status
    assert status.flats_used == borrowed.flats
    assert f"has no flats yet: those of run {lender.run_uid} (borrowed) stands in for them" in status.message
    assert status.severity == "MINOR"
    np.testing.assert_allclose(borrowed.image, lender.image, atol=1e-6)
    again = play(session, without_flats(streams), tomo=SET_UP)
    # What is borrowed is not handed on.
    assert again.flats == f"run {lender.run_uid} (borrowed)"


def start(uid: str, **about: Any) -> RunStart:
    tomo = {key: value for key, value in {**SET_UP, **about}.items() if value is not None}
    return RunStart(run_uid=uid, scan_id=1, plan_name="", time_s=0.0, tomo=tomo)


def dark_flat(streams: dict[str, np.ndarray]) -> DarkFlat:
    result = DarkFlat(*streams["flats"].shape[1:])
    result.add_darks(streams["darks"])
    result.add_flats(streams["flats"])
    return result


@pytest.mark.parametrize(
    "change",
    [
        {"exposure_s": 0.5},
        {"exposure_s": None},
        {"image_key": "other"},
        {"image_key": None},
        {"energy_kev": 30.0},
        {"pixel_mm": 0.9},
        {"geometry": "cone"},
    ],
)
def test_flats_are_lent_only_between_runs_that_are_surely_of_the_same_set_up(
    streams: dict, change: dict[str, Any]
) -> None:
    kept = KeptFlats()
    kept.keep(start("lender"), dark_flat(streams))
    shape = streams["flats"].shape[1:]
    assert kept.like(start("same"), shape) is not None
    assert kept.like(start("same"), (shape[0], shape[1] - 8)) is None
    assert kept.like(start("other", **change), shape) is None
    # Nor where both are silent.
    kept.keep(start("silent", **change), dark_flat(streams))
    like = kept.like(start("as silent", **change), shape)
    assert (like is None) == (None in change.values())


def test_a_lender_is_kept_while_it_is_used_and_who_borrows_is_not(streams: dict) -> None:
    kept = KeptFlats()
    own, borrower = dark_flat(streams), DarkFlat.borrowed(dark_flat(streams))
    kept.keep(start("lender"), own)
    for n in range(2 * RUNS_KEPT):
        assert kept.of("lender") is own
        kept.keep(start(f"borrower {n}"), borrower)
        kept.keep(start(f"other {n}", exposure_s=n), own)
        assert kept.of(f"borrower {n}") is None
    assert kept.like(start("new"), own.shape) == ("lender", own)
    for n in range(RUNS_KEPT):
        kept.keep(start(f"newer {n}", exposure_s=n), own)
    assert kept.of("lender") is None


def test_without_any_flats_the_beam_is_estimated_after_a_turn_and_that_is_told(streams: dict) -> None:
    with Session(settings(learn={"buffer": 64}), sinks=[]) as session:
        run = PlayedRun(JITCallback(session))
        run.frames("darks", streams["darks"])
        run.frames("primary", streams["primary"][:-1])
        assert session.wait_for(lambda status: status.projections == ANGLES - 1, SOON_S)
        assert session.status.flats_used == "none"
        run.frames("primary", streams["primary"][-1:])
        assert session.wait_for(lambda _: session.latest("XY", "raw") is not None, SOON_S)
        status = session.status
        assert status.flats_used == "estimated"
        assert "has no flats yet: an estimate from its projections stands in for them" in status.message
        assert status.learning.reason.endswith("without flats of this run (estimated)")
        run.frames("flats", streams["flats"])
        assert session.wait_for(lambda status: status.flats_used == "this run", SOON_S)
        run.stop()
        assert session.wait_for(finished(run.uid), SOON_S)
        update = session.latest("XY", "raw")
        assert update is not None
        assert update.flats == "this run"
        assert "without flats" not in session.status.learning.reason
    with Session(settings(), sinks=[]) as session:
        np.testing.assert_allclose(update.image, play(session, streams).image, atol=1e-6)


def test_a_short_run_without_flats_is_shown_when_it_has_ended(session: Session, streams: dict) -> None:
    part = {**without_flats(streams), "primary": streams["primary"][: ANGLES // 2 + 1]}
    assert play(session, part).flats == "estimated"


def test_flats_that_are_retaken_take_effect_on_what_came_before_and_after(session: Session, streams: dict) -> None:
    """The beam falls to 0.8 in mid-run; flats before and after show by how much."""
    steady = play(session, streams)
    half = ANGLES // 2
    fallen = {name: np.rint(0.8 * streams[name]).astype(np.uint16) for name in ("flats", "primary")}
    run = PlayedRun(JITCallback(session))
    run.frames("flats", streams["flats"])
    run.frames("primary", streams["primary"][:half])
    assert session.wait_for(lambda status: status.run_uid == run.uid and status.projections == half, SOON_S)
    run.frames("flats", fallen["flats"])
    run.frames("primary", fallen["primary"][half:])
    run.stop()
    assert session.wait_for(finished(run.uid), SOON_S)
    retaken = session.latest("XY", "raw")
    assert retaken is not None
    assert session.status.flats == 2 * len(streams["flats"])
    assert "the beam changed by -20" in session.status.message
    truth = PHANTOM.attenuation(steady.grid, 0.0, oversample=2)
    inside = np.hypot(*(steady.grid.points()[..., axis] for axis in (0, 1))) < 0.8 * GEOMETRY.radius_mm
    means = [float(update.image[inside].mean()) for update in (steady, retaken)]
    assert means[1] == pytest.approx(float(truth[inside].mean()), rel=0.1)


def test_people_may_rather_have_no_slices_than_doubtful_ones(streams: dict) -> None:
    with Session(settings(tomo={"without_flats": "wait"}), sinks=[]) as session:
        play(session, streams)
        uid = emit_run(JITCallback(session), without_flats(streams))
        assert session.wait_for(finished(uid), SOON_S)
        assert session.latest("XY", "raw") is None
        assert "has no flats, so its slices cannot be made" in session.status.message
