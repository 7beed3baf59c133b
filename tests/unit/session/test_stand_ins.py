"""A run's own darks and flats win over what stands in for them, which waits for those that are announced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from filed_frames import filed_frames
from simulated_run import ANGLES, TOMO, frames

from bluesky_jit import Session
from bluesky_jit.messages import Asset, FrameKind, InlineFrames, RunStart, RunStop
from bluesky_jit.settings import load_settings

SOON_S = 30.0
SET_UP = {**TOMO, "image_key": "camera_image", "exposure_s": 0.02}


@pytest.fixture(scope="module")
def streams() -> dict[str, np.ndarray]:
    return frames(turns=1)


@pytest.fixture
def session() -> Iterator[Session]:
    intake = {"queue_frames": 4096, "file_patience_s": 0.2}
    with Session(load_settings(environment={}, learn={"enabled": False}, intake=intake), sinks=[]) as running:
        yield running


def begin(session: Session, uid: str, **about: object) -> None:
    session.submit(RunStart(run_uid=uid, scan_id=1, plan_name="", time_s=0.0, tomo={**SET_UP, **about}))


def bring(session: Session, uid: str, kind: FrameKind, counts: np.ndarray, *, degrees: bool = False) -> None:
    n = len(counts)
    angles = np.arange(n) * 2 * np.pi / ANGLES
    session.submit(
        InlineFrames(
            run_uid=uid,
            kind=kind,
            counts=counts,
            unique_ids=np.arange(n),
            frame_times_s=np.arange(n) + 1.0,
            angles_rad=np.rad2deg(angles) if degrees else angles,
            angle_source="same stream",
        )
    )


def end(session: Session, uid: str) -> None:
    session.submit(RunStop(run_uid=uid, time_s=1e3, exit_status="success"))
    assert session.wait_for(lambda status: status.run_uid == uid and status.state == "idle", SOON_S)


def flats_used(session: Session, uid: str) -> str:
    assert session.wait_for(lambda status: status.run_uid == uid and status.flats_used != "none", SOON_S)
    return session.status.flats_used


def test_own_darks_that_do_not_fit_the_flats_of_the_run_before_are_used_all_the_same(
    session: Session, streams: dict
) -> None:
    """Nor are the darks of that run used in one that has flats of its own."""
    begin(session, "dim")
    bring(session, "dim", "dark", streams["darks"])
    bring(session, "dim", "flat", streams["flats"] // 20)
    end(session, "dim")
    for uid, lender in (("own", "dim"), ("without darks", "own")):
        begin(session, uid)
        bring(session, uid, "projection", streams["primary"] + np.uint16(8000))
        assert flats_used(session, uid) == f"run {lender} (borrowed)"
        if uid == "own":
            bring(session, uid, "dark", streams["darks"] + np.uint16(8000))
        bring(session, uid, "flat", streams["flats"] + np.uint16(8000))
        end(session, uid)
        assert (session.status.frames_lost, session.status.flats_used) == (0, "this run")
        assert ("no darks came" in session.status.message) == (uid == "without darks")


def test_flats_are_not_estimated_from_projections_that_were_refused(session: Session, streams: dict) -> None:
    for uid in ("first", "second"):
        begin(session, uid)
        bring(session, uid, "projection", streams["primary"], degrees=True)
        end(session, uid)
    assert not session.is_lost("intake")
    begin(session, "right")
    bring(session, "right", "projection", streams["primary"])
    end(session, "right")
    assert session.status.flats_used == "estimated"


def test_the_named_run_is_waited_for_while_it_goes_on(session: Session, streams: dict) -> None:
    begin(session, "third")
    bring(session, "third", "flat", streams["flats"])
    end(session, "third")
    begin(session, "named")
    bring(session, "named", "dark", streams["darks"])
    bring(session, "named", "flat", streams["flats"])
    begin(session, "run", dark_flat_uid="named")
    bring(session, "run", "projection", streams["primary"])
    assert session.wait_for(lambda status: status.projections == ANGLES, SOON_S)
    assert session.status.flats_used == "none"
    session.submit(RunStop(run_uid="named", time_s=1e3, exit_status="success"))
    assert flats_used(session, "run") == "run named"
    end(session, "run")


def test_own_flats_of_a_closed_file_are_read_before_the_run_has_ended(
    session: Session, streams: dict, tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "flats.h5", "w", locking=False) as file:
        file["data"] = streams["flats"]
    image = Asset(uri=f"file://localhost{tmp_path}/flats.h5", dataset="data", first=0, count=20, swmr=False)
    begin(session, "run")
    session.submit(filed_frames(image, run_uid="run", kind="flat"))
    bring(session, "run", "projection", streams["primary"])
    assert flats_used(session, "run") == "this run"
    end(session, "run")
