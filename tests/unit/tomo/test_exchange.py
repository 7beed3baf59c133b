"""ASTRA's vectors and RTK's parameters mean the same rays as our matrices, in random set-ups and in their own code."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from random_geometry import geometries

from bluesky_jit.tomo.calibration import Calibration
from bluesky_jit.tomo.exchange import (
    RtkProjection,
    from_astra,
    from_rtk,
    geometry_of_vectors,
    to_astra,
    to_astra_slice,
    to_rtk,
    vectors_of,
)
from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry

CONE = ConeGeometry(n_u=90, n_v=70, pixel_mm=0.4, source_axis_mm=60, source_detector_mm=150, axis_offset_mm=0.7)
PARALLEL = ParallelGeometry(n_u=90, n_v=70, pixel_mm=0.4, axis_offset_mm=-0.7)
ANGLES = np.array([0.0, 0.3, 1.7, 2.9, 4.4, 6.1])


def pixels_by_vectors(vectors, kind, n_u, n_v, points):
    """Find where points (m, 3) land, from a table of vectors alone: solve for the point on the detector's plane."""
    found = []
    for first, centre, u, v in vectors.reshape(-1, 4, 3):
        for point in points:
            ray = point - first if kind == "cone" else first
            column, row, _ = np.linalg.solve(np.stack([u, v, -ray], axis=1), point - centre)
            found.append((column + (n_u - 1) / 2, row + (n_v - 1) / 2))
    return np.array(found)


def pixels_by_matrices(matrices, points):
    u, v, w = np.moveaxis(matrices @ np.column_stack([points, np.ones(len(points))]).T, 1, 0)
    return np.stack([u / w, v / w], axis=-1).reshape(-1, 2)


def some_points(geometry):
    reach = min(geometry.radius_mm, geometry.half_height_mm)
    return reach * np.array([[0, 0, 0], [0.5, 0, 0], [0, 0.4, 0.2], [-0.3, 0.2, -0.6]])


@given(geometry=geometries())
def test_astras_vectors_say_what_the_matrices_say(geometry):
    points = some_points(geometry)
    expected = pixels_by_matrices(geometry.detector_matrices(ANGLES), points)
    described = to_astra(geometry, ANGLES)
    found = pixels_by_vectors(described["Vectors"], geometry.kind, geometry.n_u, geometry.n_v, points)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@given(geometry=geometries())
def test_a_geometry_made_of_astras_vectors_has_the_same_matrices(geometry):
    points = some_points(geometry)
    made, angles = from_astra(to_astra(geometry, ANGLES))
    found = pixels_by_matrices(made.detector_matrices(angles), points)
    np.testing.assert_allclose(found, pixels_by_matrices(geometry.detector_matrices(ANGLES), points), atol=1e-4)


@pytest.mark.parametrize("geometry", [CONE, PARALLEL], ids=["cone", "parallel"])
def test_a_set_up_without_ambiguity_comes_back_number_for_number(geometry):
    wobble = Calibration(angles_rad=tuple(ANGLES), detector_v_mm=(0.1, -0.1, 0.2, -0.2, 0.3, -0.3))
    off = {"detector_roll_rad": 0.02, "detector_pitch_rad": -0.03, "axis_tilt_rad": 0.2, "detector_v_mm": 0.5}
    geometry = replace(geometry, **off, calibration=wobble)
    made, angles = from_astra(to_astra(geometry, ANGLES))
    np.testing.assert_allclose(angles, ANGLES, atol=1e-9)
    for name in (*off, "pixel_mm", "axis_offset_mm"):
        assert getattr(made, name) == pytest.approx(getattr(geometry, name), abs=1e-9)
    assert made.calibration is not None
    assert made.calibration.detector_v_mm == pytest.approx(wobble.detector_v_mm, abs=1e-9)


def test_what_is_no_turning_sample_before_a_still_detector_is_refused():
    vectors = vectors_of(CONE, ANGLES)
    rolled = vectors_of(replace(CONE, detector_roll_rad=0.1), ANGLES)
    size = {"n_u": 90, "n_v": 70}
    with pytest.raises(ValueError, match=r"detector_roll_rad goes from .* to 0.1 rad over the angles"):
        geometry_of_vectors(np.concatenate([vectors[:3], rolled[3:]]), kind="cone", **size)
    with pytest.raises(ValueError, match="seen from behind"):
        geometry_of_vectors(vectors * np.repeat([1, 1, -1, 1], 3), kind="cone", **size)
    with pytest.raises(ValueError, match=r"the source lies .* mm before the rotation axis, where it has no image"):
        geometry_of_vectors(vectors * np.repeat([0, 1, 1, 1], 3), kind="cone", **size)
    with pytest.raises(ValueError, match="not squares of one size"):
        geometry_of_vectors(vectors * np.repeat([1, 1, 2, 1], 3), kind="cone", **size)
    with pytest.raises(ValueError, match="pixels have no size"):
        geometry_of_vectors(vectors * np.repeat([1, 1, 0, 0], 3), kind="cone", **size)
    with pytest.raises(ValueError, match=r"an array of \(6, 6\): give \(n, 12\)"):
        geometry_of_vectors(vectors[:, :6], kind="cone", **size)
    with pytest.raises(ValueError, match="'cone': give one of cone_vec, parallel3d_vec"):
        from_astra({"type": "cone"})


@given(geometry=geometries())
def test_rtks_parameters_come_back_as_the_same_rays(geometry):
    if geometry.kind == "parallel":
        geometry = replace(geometry, detector_pitch_rad=0, detector_yaw_rad=0)
    points = some_points(geometry)
    made, angles = from_rtk(to_rtk(geometry, ANGLES), n_u=geometry.n_u, n_v=geometry.n_v, pixel_mm=geometry.pixel_mm)
    found = pixels_by_matrices(made.detector_matrices(angles), points)
    np.testing.assert_allclose(found, pixels_by_matrices(geometry.detector_matrices(ANGLES), points), atol=1e-4)


def test_a_plain_set_up_has_rtks_plain_numbers():
    (projection,) = to_rtk(replace(CONE, axis_offset_mm=0, detector_u_mm=2), np.array([np.pi / 6]))
    assert projection == pytest.approx(
        RtkProjection(
            source_axis_mm=60,
            source_detector_mm=150,
            gantry_deg=-30,
            projection_offset_x_mm=2,
            projection_offset_y_mm=0,
            out_of_plane_deg=0,
            in_plane_deg=0,
            source_offset_x_mm=0,
            source_offset_y_mm=0,
        ),
        abs=1e-9,
    )


def test_what_rtk_cannot_say_is_refused():
    with pytest.raises(ValueError, match="meets the detector squarely"):
        to_rtk(replace(PARALLEL, detector_yaw_rad=0.1), ANGLES)
    with pytest.raises(ValueError, match=r"an array of \(1, 3\): give source_axis_mm"):
        from_rtk([(1, 2, 3)], n_u=4, n_v=4, pixel_mm=1)


@pytest.fixture(scope="module")
def itk():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # SWIG's types name no module
        return pytest.importorskip("itk")


@pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")
@given(geometry=geometries())
def test_rtks_own_matrices_equal_ours(itk, geometry):
    if geometry.kind == "parallel":
        geometry = replace(geometry, detector_pitch_rad=0, detector_yaw_rad=0)
    theirs = itk.RTK.ThreeDCircularProjectionGeometry.New()
    for projection in to_rtk(geometry, ANGLES):
        theirs.AddProjection(*projection)
    points = some_points(geometry)
    # RTK counts mm from the middle of the detector, in its own frame: its (x, y, z) are our (x, z, -y).
    matrices = np.array([itk.array_from_matrix(theirs.GetMatrix(n)) for n in range(len(ANGLES))])
    found = pixels_by_matrices(matrices, points[:, [0, 2, 1]] * [1, 1, -1]) / geometry.pixel_mm
    found += [(geometry.n_u - 1) / 2, (geometry.n_v - 1) / 2]
    np.testing.assert_allclose(found, pixels_by_matrices(geometry.detector_matrices(ANGLES), points), atol=1e-4)


@pytest.mark.parametrize(
    "geometry",
    [
        CONE,
        PARALLEL,
        replace(CONE, detector_u_mm=1.3, detector_yaw_rad=0.2),
        replace(PARALLEL, detector_u_mm=-1.3, detector_yaw_rad=-0.2),
    ],
    ids=["cone", "parallel", "cone, turned detector", "parallel, turned detector"],
)
def test_astra_projects_a_point_to_where_our_matrix_says(geometry):
    astra = pytest.importorskip("astra")
    size, step = 400, 0.05
    x, y = 3.125, -2.075
    volume = np.zeros((size, size), dtype=np.float32)
    # ASTRA's rows run down, from the largest y.
    volume[round(size / 2 - 0.5 - y / step), round(size / 2 - 0.5 + x / step)] = 1
    half = size / 2 * step
    shown = astra.create_vol_geom(size, size, -half, half, -half, half)
    described = to_astra_slice(geometry, ANGLES)
    # A point is smaller than a pixel: look at it with a detector of finer pixels.
    fine = 8
    described["Vectors"][:, 4:] /= fine
    rays = astra.create_proj_geom(described["type"], fine * described["DetectorCount"], described["Vectors"])
    projector = astra.create_projector("line_fanflat" if geometry.kind == "cone" else "line", rays, shown)
    number, sinogram = astra.create_sino(volume, projector)
    astra.data2d.delete(number)
    astra.projector.delete(projector)
    columns = (np.arange(fine * geometry.n_u) + 0.5) / fine - 0.5
    found = sinogram @ columns / sinogram.sum(axis=1)
    expected = pixels_by_matrices(geometry.detector_matrices(ANGLES), np.array([[x, y, 0.0]]))[:, 0]
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_rows_that_lie_in_no_plane_have_no_slice():
    with pytest.raises(ValueError, match="lie in no plane: use to_astra"):
        to_astra_slice(replace(CONE, axis_tilt_rad=0.1), ANGLES)
