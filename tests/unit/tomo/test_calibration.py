"""Measured shifts between their angles, and what a calibration refuses."""

import numpy as np
import pytest

from bluesky_jit.tomo.calibration import Calibration, calibration_from_metadata

MEASURED = Calibration(angles_rad=(np.pi, 0.0, np.pi / 2), sample_x_mm=(3.0, 1.0, 2.0))


def test_shifts_are_interpolated_between_angles_and_across_the_end_of_the_turn():
    angles = np.array([0, np.pi / 4, np.pi, 1.5 * np.pi, 2 * np.pi, -1.5 * np.pi, 20 * np.pi])
    np.testing.assert_allclose(MEASURED.shifts("sample_x_mm", angles), [1, 1.5, 3, 2, 1, 2, 1])


def test_what_was_not_measured_is_zero():
    np.testing.assert_array_equal(MEASURED.shifts("detector_u_mm", np.arange(3.0)), 0)
    assert MEASURED.largest("detector_u_mm") == 0
    assert MEASURED.largest("sample_x_mm") == 3


def test_one_angle_holds_for_the_whole_turn():
    np.testing.assert_allclose(
        Calibration(angles_rad=(1.0,), detector_v_mm=(0.2,)).shifts("detector_v_mm", [0, 5]), 0.2
    )


def test_a_whole_turn_in_radians_is_taken_and_one_in_degrees_is_not():
    assert len(Calibration(angles_rad=tuple(np.arange(360) * np.pi / 180)).angles_rad) == 360
    with pytest.raises(ValueError, match=r"span 359 rad, more than one turn: if they are degrees, give radians"):
        Calibration(angles_rad=tuple(range(360)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"angles_rad": ()}, "has no angles: give at least one"),
        (
            {"angles_rad": (0, 1), "sample_z_mm": (1, 2, 3)},
            "sample_z_mm of the calibration has 3 values and there are 2",
        ),
        ({"angles_rad": (0, 1), "sample_z_mm": (1, np.nan)}, "sample_z_mm of the calibration holds .*finite"),
        ({"angles_rad": (0, 1, 0)}, "has an angle twice"),
        ({"angles_rad": (0, 2 * np.pi)}, "has an angle twice"),
        ({"angles_deg": (0, 1)}, "the calibration has 'angles_deg': give angles_rad, detector_u_mm"),
        ({"sample_x_mm": (0, 1)}, "has no angles_rad among sample_x_mm"),
    ],
)
def test_a_calibration_that_cannot_be_says_why(values, message):
    with pytest.raises(ValueError, match=message):
        calibration_from_metadata(values)
