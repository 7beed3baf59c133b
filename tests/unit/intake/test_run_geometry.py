"""A run's set-up comes from its metadata, then from the settings, to the last measured shift."""

import json
from dataclasses import replace

import pytest

from bluesky_jit.intake.calibration_file import read_calibration
from bluesky_jit.intake.setup import geometry_of, tomo_block
from bluesky_jit.settings import load_settings
from bluesky_jit.settings_sections import GeometrySettings
from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry

SHAPE = (60, 80)
SETTINGS = GeometrySettings(
    pixel_mm=0.5,
    source_axis_mm=100,
    source_detector_mm=400,
    axis_offset_mm=0.1,
    axis_tilt_rad=0.02,
    detector_u_mm=1,
    detector_v_mm=-1,
    detector_roll_rad=0.01,
    detector_pitch_rad=0.03,
    detector_yaw_rad=-0.04,
)
GEOMETRY = ConeGeometry(
    n_u=80,
    n_v=60,
    pixel_mm=0.5,
    source_axis_mm=100,
    source_detector_mm=400,
    axis_offset_mm=0.1,
    axis_tilt_rad=0.02,
    detector_u_mm=1,
    detector_v_mm=-1,
    detector_roll_rad=0.01,
    detector_pitch_rad=0.03,
    detector_yaw_rad=-0.04,
)
MEASURED = """\
# shifts of 14 May, from the steel ball
angle_deg, detector_u_mm, sample_z_mm
0, 0.10, 0
90, -0.05, 0.02

180, 0.00, 0.01
"""


@pytest.fixture
def measured(tmp_path):
    path = tmp_path / "shifts.csv"
    path.write_text(MEASURED)
    return path


def test_settings_alone_describe_the_whole_set_up():
    assert geometry_of({}, SETTINGS, SHAPE) == GEOMETRY


def test_what_the_run_says_goes_before_the_settings():
    tomo = {"detector_roll_rad": 0.0, "axis_tilt_rad": 0.5, "detector_yaw_rad": None}
    assert geometry_of(tomo, SETTINGS, SHAPE) == replace(GEOMETRY, detector_roll_rad=0.0, axis_tilt_rad=0.5)


def test_a_parallel_beam_needs_no_distances():
    made = geometry_of({"geometry": "parallel", "extended_field": True}, GeometrySettings(pixel_mm=0.5), SHAPE)
    assert made == ParallelGeometry(n_u=80, n_v=60, pixel_mm=0.5, extended_field=True)


def test_a_start_document_made_from_settings_gives_their_geometry_without_them(measured):
    settings = replace(SETTINGS, calibration_file=str(measured))
    recorded = json.loads(json.dumps(tomo_block(settings)))
    made = geometry_of(recorded, GeometrySettings(), SHAPE)
    assert made == geometry_of({}, settings, SHAPE)
    assert made.calibration is not None
    assert made.calibration.detector_u_mm == (0.1, -0.05, 0.0)


def test_every_setting_can_be_given_as_text(measured):
    environment = {
        "BLUESKY_JIT_GEOMETRY__KIND": "parallel",
        "BLUESKY_JIT_GEOMETRY__PIXEL_MM": "0.5",
        "BLUESKY_JIT_GEOMETRY__DETECTOR_ROLL_RAD": "0.01",
        "BLUESKY_JIT_GEOMETRY__EXTENDED_FIELD": "true",
        "BLUESKY_JIT_GEOMETRY__CALIBRATION_FILE": str(measured),
    }
    made = geometry_of({}, load_settings(environment=environment).geometry, SHAPE)
    assert made.detector_roll_rad == 0.01
    assert made.extended_field
    assert made.calibration == read_calibration(measured)


@pytest.mark.parametrize(
    ("tomo", "message"),
    [
        ({"geometry": "helix"}, "tomo.geometry is 'helix': give one of cone, parallel"),
        ({"detector_yaw_rad": "much"}, "tomo.detector_yaw_rad is 'much' in the run's metadata: give a number"),
        ({"detector_yaw_rad": 2}, "detector_yaw_rad is 2, .*looks like degrees"),
        ({"source_axis_mm": 0}, "source_axis_mm is 0.0: give a positive number of mm"),
        ({"calibration": "shifts.csv"}, "tomo.calibration is 'shifts.csv': give lists of angles_rad"),
        ({"calibration": {"angle_deg": [0]}}, "the calibration has 'angle_deg': give angles_rad"),
    ],
)
def test_metadata_that_cannot_be_are_named(tomo, message):
    with pytest.raises(ValueError, match=message):
        geometry_of(tomo, SETTINGS, SHAPE)


def test_what_is_missing_is_named_with_where_to_give_it():
    with pytest.raises(ValueError, match=r"without source_axis_mm, source_detector_mm: .*geometry.source_axis_mm"):
        geometry_of({}, GeometrySettings(pixel_mm=0.5), SHAPE)


def test_measured_shifts_are_read_in_degrees_or_radians(measured, tmp_path):
    made = read_calibration(measured)
    assert made.angles_rad == pytest.approx((0, 1.5707963, 3.1415927))
    assert made.sample_z_mm == (0, 0.02, 0.01)
    assert made.sample_x_mm == ()
    in_radians = tmp_path / "radians.csv"
    in_radians.write_text("angle_rad,sample_x_mm\n0,1\n3.1,2\n")
    assert read_calibration(in_radians).angles_rad == (0, 3.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has columns of no name: give angle_deg or angle_rad"),
        ("angle,sample_x_mm\n0,1\n", "has columns angle, sample_x_mm: give angle_deg or angle_rad"),
        ("angle_deg,sample_x\n0,1\n", "has columns angle_deg, sample_x: give"),
        ("angle_deg,angle_rad\n0,0\n", "each once"),
        ("angle_deg,sample_x_mm\n0,1\n90,far\n", "sample_x_mm is 'far' in data line 2: give a number"),
        ("angle_deg,sample_x_mm\n0,1\n90\n", "sample_x_mm is None in data line 2: give a number"),
        ("angle_deg,sample_x_mm\n0,1\n360,1\n", "shifts.csv: the calibration has an angle twice"),
        ("angle_deg,sample_x_mm\n", "has no angles"),
    ],
)
def test_a_calibration_file_that_cannot_be_says_why(measured, text, message):
    measured.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_calibration(measured)


def test_a_calibration_file_that_is_not_there_is_named_with_its_setting(tmp_path):
    with pytest.raises(ValueError, match=r"gone.csv cannot be read .*: check geometry.calibration_file"):
        read_calibration(tmp_path / "gone.csv")
