"""Which images can be trusted: only those of this run, and of a denoiser that is ready."""

from dataclasses import replace

import numpy as np

from bluesky_jit.messages import AnglesUsed, ImageKind, Learning, SessionStatus, Update
from bluesky_jit.publish import table
from bluesky_jit.publish.image_alarms import IMAGES, LEARNED, NO_IMAGE, ImageAlarms
from bluesky_jit.tomo.grid import Grid

READY = SessionStatus(time_s=1.0, state="running", run_uid="a", learning=Learning(ready=True))


def update(kind: ImageKind, run_uid: str = "a") -> Update:
    grid = Grid.slice_xy(voxel_mm=0.1, shape=(2, 2))
    return Update(
        run_uid=run_uid,
        number=1,
        slice_name="XY",
        kind=kind,
        grid=grid,
        image=np.zeros(grid.shape, np.float32),
        angles=AnglesUsed(count=1, first_id=0, last_id=0, arc_rad=1.0, source="same stream"),
        turn=0,
        flats="none",
        frame_time_s=0.0,
        made_time_s=0.0,
    )


def after(*messages: SessionStatus | Update) -> ImageAlarms:
    alarms = ImageAlarms()
    for message in messages:
        alarms.take(message)
    return alarms


def test_what_comes_of_learning_is_told_from_the_rest():
    denoised = {"XY:Denoised", "XZ:Denoised", "YZ:Denoised"}
    assert set(LEARNED) == {*denoised, "Residual", "Doubt", "Analysis", "Segmentation"}


def test_before_its_first_update_an_image_is_invalid():
    assert {after().of(name) for name in IMAGES} == {("INVALID", NO_IMAGE)}


def test_only_changes_are_told():
    alarms = after(READY)
    assert alarms.take(READY) == {}
    assert alarms.take(update("raw")) == {"XY:Raw": ("NO_ALARM", "")}
    assert alarms.take(update("raw")) == {}


def test_a_late_update_of_the_run_before_stays_invalid():
    alarms = after(READY, replace(READY, run_uid="b"), update("raw"))
    assert alarms.of("XY:Raw") == ("INVALID", NO_IMAGE)
    assert after(READY, replace(READY, run_uid="b"), update("raw", "b")).of("XY:Raw").severity == "NO_ALARM"


def test_a_stale_or_silent_session_does_not_make_a_missing_image_any_better():
    alarms = after(READY, update("raw"), replace(READY, state="stale"))
    assert (alarms.of("XY:Raw"), alarms.of("XZ:Raw")) == (("MINOR", "stale"), ("INVALID", NO_IMAGE))
    alarms.take(table.silent(READY, 9.0))
    assert alarms.of("XY:Raw") == ("INVALID", "failed")


def test_the_reason_of_a_denoiser_in_doubt_is_kept_up_to_date():
    doubt = replace(READY, learning=Learning(reason="one of 3 evaluations passed"))
    alarms = after(READY, update("denoised"), doubt)
    assert alarms.of("XY:Denoised") == ("INVALID", "one of 3 evaluations passed")
    assert alarms.of("XZ:Raw") == ("INVALID", NO_IMAGE)
