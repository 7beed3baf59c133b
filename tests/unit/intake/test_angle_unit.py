"""Angles in the other unit are noticed, whatever else is odd about them, and honest ones never refused."""

import numpy as np
import pytest

from bluesky_jit.intake.angle_unit import AngleUnit, WrongAngleUnit, require_radians
from bluesky_jit.messages import ProjectionBlock

PER_TURN = 180


def block(angles_rad, acquisition=None, kind="projection"):
    n = len(angles_rad)
    acquisition = np.arange(n) if acquisition is None else np.asarray(acquisition)
    return ProjectionBlock(
        run_uid="a run",
        kind=kind,
        counts=np.zeros((n, 2, 2), dtype=np.uint16),
        acquisition=acquisition,
        unique_ids=acquisition,
        frame_times_s=np.zeros(n),
        received_times_s=np.zeros(n),
        angles_rad=np.asarray(angles_rad, dtype=np.float64),
        angle_source="same stream",
    )


STEP_RAD = 2 * np.pi / PER_TURN
HONEST = {
    "a turn": np.arange(20) * STEP_RAD,
    "backwards": -np.arange(20) * STEP_RAD,
    "over the end of a turn": np.mod(-10 * STEP_RAD + np.arange(20) * STEP_RAD, 2 * np.pi),
    "half as fast": np.arange(20) * STEP_RAD / 2,
    "at rest": np.zeros(20),
    "too few to tell": np.arange(5) * 2.0,
}


@pytest.mark.parametrize("angles", HONEST.values(), ids=HONEST.keys())
def test_honest_angles_pass(angles):
    AngleUnit(PER_TURN).check(block(angles))


@pytest.mark.parametrize("start", [0.0, 350.0])
def test_degrees_taken_for_radians_are_refused_from_then_on(start):
    unit = AngleUnit(PER_TURN)
    angles = np.mod(start + 2.0 * np.arange(20), 360)
    unit.check(block(angles[:5]))
    for rows in (slice(5, 12), slice(12, 20)):
        with pytest.raises(
            WrongAngleUnit, match=r"steps are 2 rad \(114.6°\) and should be 0.03491 rad \(2°\): .*units"
        ):
            unit.check(block(angles[rows], np.arange(20)[rows]))


def test_radians_taken_for_degrees_are_refused():
    with pytest.raises(WrongAngleUnit, match=r"radians taken for degrees; .*intake.angle_unit"):
        AngleUnit(PER_TURN).check(block(np.deg2rad(np.arange(20) * STEP_RAD)))


def test_lost_frames_do_not_hide_the_unit():
    acquisition = np.arange(0, 40, 2)
    with pytest.raises(WrongAngleUnit):
        AngleUnit(PER_TURN).check(block(2.0 * acquisition, acquisition))


@pytest.mark.parametrize("mode", ["golden", "interlaced"])
def test_angles_out_of_order_have_no_step_to_compare(mode):
    AngleUnit(PER_TURN, mode).check(block(2.0 * np.arange(20)))


def test_darks_and_flats_have_no_angles_to_look_at():
    AngleUnit(PER_TURN).check(block(np.full(20, np.nan), kind="dark"))


@pytest.mark.parametrize("turns", [0.5, 1, 2, 10])
@pytest.mark.parametrize("end", [True, False])
def test_stored_scans_of_whole_half_turns_pass(turns, end):
    require_radians(np.linspace(0, 2 * np.pi * turns, 900, endpoint=end), "scan.h5")


@pytest.mark.parametrize("degrees", [180, 360])
@pytest.mark.parametrize("end", [True, False])
def test_stored_scans_in_the_other_unit_are_refused(degrees, end):
    angles = np.linspace(0, degrees, 900, endpoint=end)
    with pytest.raises(WrongAngleUnit, match=r"scan.h5: 900 angles reach over .* degrees taken for radians"):
        require_radians(angles, "scan.h5")
    with pytest.raises(WrongAngleUnit, match="radians taken for degrees; correct the attribute `units`"):
        require_radians(np.deg2rad(np.deg2rad(angles)), "scan.h5")
