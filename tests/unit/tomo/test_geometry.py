"""Where points land on the detector: against points worked out by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_geometry import between, geometries
from scipy.spatial.transform import Rotation

from bluesky_jit.tomo.calibration import Calibration
from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry, geometry_from_metadata

CONE = ConeGeometry(n_u=101, n_v=61, pixel_mm=0.5, source_axis_mm=100, source_detector_mm=400)
PARALLEL = ParallelGeometry(n_u=101, n_v=61, pixel_mm=0.5)
QUARTER = np.pi / 2


def pixel(geometry, point, angle_rad=0.0):
    u, v, w = geometry.matrices(np.array([angle_rad]))[0] @ np.append(point, 1.0)
    return u / w, v / w, w


@pytest.mark.parametrize(
    ("point", "angle_rad", "expected"),
    [
        # On the axis: the centre of the detector, unit depth.
        ((0, 0, 0), 0.0, (50, 30, 1)),
        ((0, 0, 0), 1.234, (50, 30, 1)),
        # Magnified four times: 2 mm are 8 mm, 16 pixels.
        ((2, 0, 0), 0.0, (66, 30, 1)),
        ((0, 0, 2), 0.0, (50, 46, 1)),
        # Downstream of the axis by 25 mm: 125 mm from the source, magnified 3.2 times.
        ((2, 25, 0), 0.0, (50 + 2 * 3.2 / 0.5, 30, 1.25)),
        # A quarter turn anticlockwise takes +x to +y (downstream) and +y to -x.
        ((25, 0, 0), QUARTER, (50, 30, 1.25)),
        ((0, 2, 0), QUARTER, (34, 30, 1)),
        ((0, 2, 0), -QUARTER, (66, 30, 1)),
    ],
)
def test_cone_projects_a_point_where_a_ruler_says(point, angle_rad, expected):
    assert pixel(CONE, point, angle_rad) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("point", "angle_rad", "expected"),
    [
        ((2, 25, 3), 0.0, (54, 36, 1)),
        ((2, 25, 3), QUARTER, (0, 36, 1)),
        ((2, 25, 3), np.pi, (46, 36, 1)),
    ],
)
def test_parallel_beam_does_not_magnify(point, angle_rad, expected):
    assert pixel(PARALLEL, point, angle_rad) == pytest.approx(expected)


def test_an_axis_offset_moves_the_axis_along_lab_x_at_every_angle():
    for angle in (0.0, 1.0, np.pi):
        assert pixel(_moved(CONE, 0.25), (0, 0, 0), angle) == pytest.approx((52, 30, 1))
        assert pixel(_moved(PARALLEL, 0.25), (0, 0, 0), angle) == pytest.approx((50.5, 30, 1))


def _moved(geometry, offset_mm):
    return geometry_from_metadata({**geometry.to_metadata(), "axis_offset_mm": offset_mm})


@pytest.mark.parametrize(
    ("off", "point", "expected"),
    [
        # The detector moved by 5 mm, ten pixels, along +u and +v: everything appears at smaller columns and rows.
        ({"detector_u_mm": 5, "detector_v_mm": 5}, (0, 0, 0), (40, 20)),
        # Rolled clockwise as the source sees it: what stands upright leans to the left by a tenth of its height.
        ({"detector_roll_rad": np.arctan(0.1)}, (0, 0, 2), (50 - 1.6 * np.cos(0.0997), 30 + 16 * np.cos(0.0997))),
        # Pitched: its upper end leans towards the source by 30°, and rays that climb meet it lower and sooner.
        ({"detector_pitch_rad": np.pi / 6}, (0, 0, 0), (50, 30)),
        ({"detector_pitch_rad": np.pi / 6}, (0, 0, 2), (50, 30 + 2 * 8 / (np.cos(np.pi / 6) + 0.02 * 0.5))),
        # Turned: its +u end lies further downstream.
        ({"detector_yaw_rad": np.pi / 6}, (2, 0, 0), (50 + 2 * 8 / (np.cos(np.pi / 6) - 0.02 * 0.5), 30)),
    ],
)
def test_a_detector_that_is_off_sees_a_point_where_a_ruler_says(off, point, expected):
    u, v, w = replace(CONE, **off).detector_matrices(np.array([0.0]))[0] @ np.append(point, 1.0)
    assert (u / w, v / w) == pytest.approx(expected, abs=1e-3)


def test_a_tilted_axis_leans_with_its_upper_end_towards_the_source():
    tilted = replace(CONE, axis_tilt_rad=np.pi / 6)
    # 10 mm up the axis is 5 mm nearer to the source and 8.66 mm up.
    assert pixel(tilted, (0, 0, 10)) == pytest.approx((50, 30 + 8.660254 / 0.125 / 0.95, 0.95))
    # Half a turn on, the axis stands as before: it is the sample that turns.
    assert pixel(tilted, (0, 0, 10), np.pi) == pytest.approx(pixel(tilted, (0, 0, 10)))
    assert pixel(tilted, (0, 10, 0))[1] == pytest.approx(30 + 5 / 0.125 / (1 + 0.0866025))


def test_measured_shifts_move_detector_and_sample_at_their_angle():
    wobble = Calibration(
        angles_rad=(0.0, QUARTER), detector_u_mm=(0, 1), detector_v_mm=(0, -1), sample_x_mm=(0.5, 0), sample_z_mm=(0, 2)
    )
    geometry = replace(CONE, calibration=wobble)
    assert pixel(geometry, (0, 0, 0), 0.0) == pytest.approx((54, 30, 1))
    assert pixel(geometry, (0, 0, 0), QUARTER) == pytest.approx((48, 48, 1))
    assert pixel(geometry, (0, 0, 0), QUARTER / 2)[0] == pytest.approx((54 + 48) / 2)
    along_the_beam = replace(CONE, calibration=Calibration(angles_rad=(0.0,), sample_y_mm=(25,)))
    assert pixel(along_the_beam, (2, 0, 0)) == pytest.approx((50 + 2 * 3.2 / 0.5, 30, 1.25))


def traced(geometry, point, angle_rad):
    """Follow the ray through a sample point to the real detector, in the laboratory's frame; return its pixel."""
    shift = {
        name: geometry.calibration.shifts(name, np.array([angle_rad]))[0] if geometry.calibration else 0.0
        for name in ("detector_u_mm", "detector_v_mm", "sample_x_mm", "sample_y_mm", "sample_z_mm")
    }
    turned = Rotation.from_euler("zx", [angle_rad, geometry.axis_tilt_rad]).apply(point)
    at = turned + np.array([geometry.axis_offset_mm + shift["sample_x_mm"], shift["sample_y_mm"], shift["sample_z_mm"]])
    turns = [geometry.detector_roll_rad, geometry.detector_pitch_rad, geometry.detector_yaw_rad]
    u, normal, v = Rotation.from_euler("yxz", turns).as_matrix().T
    cone = geometry.kind == "cone"
    hit = np.array([0.0, geometry.source_detector_mm - geometry.source_axis_mm if cone else 0.0, 0.0])
    ray = at - [0, -geometry.source_axis_mm, 0] if cone else np.array([0.0, 1.0, 0.0])
    on_detector = at + ray * ((hit - at) @ normal) / (ray @ normal) - hit
    return (
        (on_detector @ u - geometry.detector_u_mm - shift["detector_u_mm"]) / geometry.pixel_mm
        + (geometry.n_u - 1) / 2,
        (on_detector @ v - geometry.detector_v_mm - shift["detector_v_mm"]) / geometry.pixel_mm
        + (geometry.n_v - 1) / 2,
    )


@given(geometry=geometries(), angle_rad=between(-20, 20), data=st.data())
def test_the_real_detectors_matrices_follow_the_ray_in_any_set_up(geometry, angle_rad, data):
    reach = min(geometry.radius_mm, geometry.half_height_mm)
    point = reach * np.array(data.draw(st.tuples(between(-1, 1), between(-1, 1), between(-1, 1))))
    u, v, w = geometry.detector_matrices(np.array([angle_rad]))[0] @ np.append(point, 1.0)
    assert w > 0
    np.testing.assert_allclose((u / w, v / w), traced(geometry, point, angle_rad), rtol=1e-7, atol=1e-6)


@given(geometry=geometries(calibrated=False), angle_rad=between(-20, 20), data=st.data())
def test_the_virtual_detectors_pixels_are_those_of_the_real_one_resampled(geometry, angle_rad, data):
    reach = min(geometry.radius_mm, geometry.half_height_mm)
    point = np.append(reach * np.array(data.draw(st.tuples(between(-1, 1), between(-1, 1), between(-1, 1)))), 1.0)
    u, v, w = geometry.to_real @ geometry.matrices(np.array([angle_rad]))[0] @ point
    expected_u, expected_v, depth = geometry.detector_matrices(np.array([angle_rad]))[0] @ point
    np.testing.assert_allclose((u / w, v / w), (expected_u / depth, expected_v / depth), atol=1e-6)


@given(geometry=geometries(calibrated=False))
def test_a_detector_that_does_not_lean_is_the_virtual_one(geometry):
    upright = replace(geometry, detector_roll_rad=0, detector_pitch_rad=0, detector_yaw_rad=0)
    np.testing.assert_allclose(upright.matrices(np.ones(1)), upright.detector_matrices(np.ones(1)), atol=1e-9)
    assert not upright.needs_resampling


@given(geometry=geometries())
def test_a_geometry_survives_its_repr_and_its_metadata_as_records_keep_it(geometry):
    assert eval(repr(geometry)) == geometry
    metadata = json.loads(json.dumps(geometry.to_metadata()))
    assert metadata["kind"] == geometry.kind
    assert geometry_from_metadata(metadata) == geometry


ANGLES = np.linspace(0, 2 * np.pi, 1441)


def seen_from_every_side(geometry, points):
    u, v, w = np.moveaxis(geometry.detector_matrices(ANGLES) @ points, 1, 0)
    u, v = u / w, v / w
    on = (u > -0.5 - 1e-6) & (u < geometry.n_u - 0.5 + 1e-6) & (v > -0.5 - 1e-6) & (v < geometry.n_v - 0.5 + 1e-6)
    return bool(on.all())


def ring(radius_mm):
    return np.stack([radius_mm * np.cos(ANGLES), radius_mm * np.sin(ANGLES), 0 * ANGLES, 1 + 0 * ANGLES])


def ends_of_the_axis(height_mm):
    return np.array([[0.0, 0.0], [0.0, 0.0], [-height_mm, height_mm], [1.0, 1.0]])


FIELDS = {
    "upright": {},
    "axis off": {"axis_offset_mm": 1.5},
    "detector moved": {"detector_u_mm": 4, "detector_v_mm": -5},
    "leaning": {"detector_roll_rad": 0.1, "detector_pitch_rad": 0.2, "detector_yaw_rad": 0.3},
    "on its corner": {"detector_roll_rad": 0.7},
    "tilted": {"axis_tilt_rad": 0.4},
    "tilted the other way": {"axis_tilt_rad": -0.9, "detector_v_mm": 2},
}


@pytest.mark.parametrize("off", FIELDS.values(), ids=FIELDS.keys())
@pytest.mark.parametrize("geometry", [CONE, PARALLEL], ids=["cone", "parallel"])
def test_radius_and_height_are_the_largest_that_every_projection_sees(geometry, off):
    geometry = replace(geometry, **off)
    assert seen_from_every_side(geometry, ring(geometry.radius_mm))
    assert not seen_from_every_side(geometry, ring(1.002 * geometry.radius_mm))
    assert seen_from_every_side(geometry, ends_of_the_axis(geometry.half_height_mm))
    assert not seen_from_every_side(geometry, ends_of_the_axis(1.002 * geometry.half_height_mm))


@pytest.mark.parametrize("name", ["upright", "axis off", "detector moved", "tilted", "tilted the other way"])
@pytest.mark.parametrize("geometry", [CONE, PARALLEL], ids=["cone", "parallel"])
def test_every_projection_sees_the_whole_cylinder(geometry, name):
    geometry = replace(geometry, **FIELDS[name])
    radius_mm, half_height_mm = geometry.cylinder_mm
    for height in (-half_height_mm, half_height_mm):
        assert seen_from_every_side(geometry, ring(radius_mm) + np.array([[0], [0], [height], [0]]))
    if name == "upright":
        assert radius_mm == geometry.radius_mm
        assert half_height_mm == pytest.approx(geometry.half_height_mm * (1 - radius_mm * geometry.curvature))


def test_measured_shifts_make_the_field_of_view_smaller():
    wobble = Calibration(
        angles_rad=(0.0,), detector_u_mm=(1,), detector_v_mm=(2,), sample_x_mm=(0.5,), sample_z_mm=(1,)
    )
    narrower = replace(PARALLEL, calibration=wobble)
    assert narrower.radius_mm == pytest.approx(PARALLEL.radius_mm - 1.5)
    assert narrower.half_height_mm == pytest.approx(PARALLEL.half_height_mm - 3)


def test_an_extended_field_reaches_as_far_as_the_detectors_far_side():
    moved = replace(PARALLEL, detector_u_mm=20, extended_field=True)
    assert moved.radius_mm == pytest.approx(PARALLEL.radius_mm + 20)
    assert replace(moved, extended_field=False).radius_mm == pytest.approx(PARALLEL.radius_mm - 20)


def test_only_an_upright_parallel_beam_shows_everything_in_half_a_turn():
    assert PARALLEL.period_rad == np.pi
    for geometry in (CONE, replace(PARALLEL, axis_tilt_rad=0.1), replace(PARALLEL, extended_field=True)):
        assert geometry.period_rad == 2 * np.pi


BAD_NUMBERS = {
    "pixel_mm": (0, r"pixel_mm is 0: give a positive number of mm"),
    "n_u": (0, r"n_u is 0: a detector has at least one pixel each way"),
    "n_v": (2.5, r"n_v is 2.5: a detector has at least one pixel each way, and whole ones"),
    "axis_offset_mm": (np.nan, r"axis_offset_mm is nan: give a finite number of mm"),
    "detector_u_mm": (
        30,
        r"-4.75 mm to the left, 55.25 to the right.*correct axis_offset_mm \(0\), detector_u_mm \(30\)",
    ),
    "detector_v_mm": (np.inf, r"detector_v_mm is inf"),
    "detector_roll_rad": (2.0, r"detector_roll_rad is 2, .*looks like degrees, so give radians \(0.03491 for 2°\)"),
    "detector_yaw_rad": (-1.5, r"detector_yaw_rad is -1.5, .*looks like degrees"),
    "axis_tilt_rad": (30.0, r"axis_tilt_rad is 30, and 1.4 \(80°\) is the limit: .* \(0.5236 for 30°\)"),
}


@pytest.mark.parametrize(("name", "value", "message"), [(name, *bad) for name, bad in BAD_NUMBERS.items()])
def test_a_number_that_cannot_be_is_named_with_its_remedy(name, value, message):
    with pytest.raises(ValueError, match=message):
        replace(PARALLEL, **{name: value})


def test_a_geometry_that_cannot_be_says_why():
    for name in ("source_axis_mm", "source_detector_mm"):
        with pytest.raises(ValueError, match=f"{name} is 0: give a positive number of mm"):
            replace(CONE, **{name: 0})
    with pytest.raises(ValueError, match=r"larger source_detector_mm"):
        replace(CONE, source_detector_mm=100)
    with pytest.raises(ValueError, match=r"reaches behind the source"):
        ConeGeometry(n_u=100, n_v=100, pixel_mm=1, source_axis_mm=10, source_detector_mm=20, detector_yaw_rad=0.6)
    with pytest.raises(
        ValueError, match=r"moves the sample by 100.0 mm along the beam, and the source is 100.0 mm away"
    ):
        replace(CONE, calibration=Calibration(angles_rad=(0.0,), sample_y_mm=(-100,)))
    with pytest.raises(ValueError, match=r"geometry is 'helix': give one of cone, parallel"):
        geometry_from_metadata({"kind": "helix"})
    with pytest.raises(ValueError, match=r"cannot be made from \['n_u'\]"):
        geometry_from_metadata({"kind": "cone", "n_u": 3})
    with pytest.raises(ValueError, match=r"give a list of finite numbers, in radians"):
        CONE.matrices(np.array([0.0, np.nan]))
