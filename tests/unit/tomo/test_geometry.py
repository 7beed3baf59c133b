"""Where points land on the detector, and what grids are made of: against points worked out by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry, geometry_from_metadata
from bluesky_jit.tomo.grid import Grid

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


@pytest.mark.parametrize("geometry", [CONE, _moved(CONE, 1.5), PARALLEL, _moved(PARALLEL, -2.0)])
def test_the_radius_is_the_largest_that_every_projection_sees(geometry):
    angles = np.linspace(0, 2 * np.pi, 721)
    matrices = geometry.matrices(angles)

    def columns(radius):
        ring = np.stack([radius * np.cos(angles), radius * np.sin(angles), 0 * angles, 1 + 0 * angles])
        u, _, w = np.moveaxis(matrices @ ring, 1, 0)
        return u / w

    inside, outside = columns(0.9995 * geometry.radius_mm), columns(1.002 * geometry.radius_mm)
    assert inside.min() > -0.5
    assert inside.max() < geometry.n_u - 0.5
    assert outside.min() < -0.5 or outside.max() > geometry.n_u - 0.5


@pytest.mark.parametrize("geometry", [CONE, PARALLEL])
def test_the_half_height_ends_at_the_detectors_edge(geometry):
    assert pixel(geometry, (0, 0, geometry.half_height_mm))[1] == pytest.approx(geometry.n_v - 0.5)


@pytest.mark.parametrize("geometry", [CONE, PARALLEL, replace(CONE, axis_offset_mm=1.5)])
def test_a_geometry_survives_its_metadata_as_records_keep_it(geometry):
    metadata = json.loads(json.dumps(geometry.to_metadata()))
    assert metadata["kind"] == geometry.kind
    assert geometry_from_metadata(metadata) == geometry


def test_a_geometry_that_cannot_be_names_value_and_remedy():
    with pytest.raises(ValueError, match=r"pixel_mm is 0: give a positive number of mm"):
        ParallelGeometry(n_u=1, n_v=1, pixel_mm=0)
    with pytest.raises(ValueError, match=r"larger source_detector_mm"):
        ConeGeometry(n_u=1, n_v=1, pixel_mm=1, source_axis_mm=10, source_detector_mm=10)
    with pytest.raises(ValueError, match=r"geometry is 'helix': give one of cone, parallel"):
        geometry_from_metadata({"kind": "helix"})
    with pytest.raises(ValueError, match=r"cannot be made from \['n_u'\]"):
        geometry_from_metadata({"kind": "cone", "n_u": 3})


@pytest.mark.parametrize(
    ("grid", "column_step", "row_step", "centre"),
    [
        (Grid.slice_xy(z_mm=3, voxel_mm=0.5, shape=(4, 6)), (0.5, 0, 0), (0, 0.5, 0), (0, 0, 3)),
        (Grid.slice_xz(y_mm=3, voxel_mm=0.5, shape=(4, 6)), (0.5, 0, 0), (0, 0, 0.5), (0, 3, 0)),
        (Grid.slice_yz(x_mm=3, voxel_mm=0.5, shape=(4, 6)), (0, 0.5, 0), (0, 0, 0.5), (3, 0, 0)),
    ],
)
def test_the_three_orthogonal_slices_lie_as_named(grid, column_step, row_step, centre):
    points = grid.points()
    assert points.shape == (1, 4, 6, 3)
    np.testing.assert_allclose(points[0, 0, 1] - points[0, 0, 0], column_step)
    np.testing.assert_allclose(points[0, 1, 0] - points[0, 0, 0], row_step)
    np.testing.assert_allclose(points.mean(axis=(0, 1, 2)), centre, atol=1e-12)
    assert grid.centre == pytest.approx(centre)


def test_a_tilted_grid_is_orthonormal_and_right_handed():
    grid = Grid.centred(centre=(1, 2, 3), x_axis=(1, 1, 0), y_axis=(0, 1, 1), voxel_mm=0.2, shape=(3, 5, 7))
    z, y, x = grid.steps / 0.2
    np.testing.assert_allclose([x @ x, y @ y, z @ z, x @ y], [1, 1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(np.cross(x, y), z, atol=1e-12)
    assert grid.points()[1, 2, 3] == pytest.approx((1, 2, 3))


def test_a_volume_surrounds_the_axis_and_a_moved_grid_keeps_its_steps():
    volume = Grid.volume(voxel_mm=1.0, shape=(3, 3, 3))
    np.testing.assert_allclose(volume.points()[0, 0, 0], (-1, -1, -1))
    np.testing.assert_allclose(volume.points()[2, 1, 0], (-1, 0, 1))
    moved = volume.moved((0, 0, 5))
    assert moved.centre == pytest.approx((0, 0, 5))
    np.testing.assert_array_equal(moved.steps, volume.steps)


def test_a_grid_survives_its_metadata():
    grid = Grid.slice_xz(y_mm=1, voxel_mm=0.5, shape=(4, 6))
    assert Grid(**grid.to_metadata()) == grid


def test_a_grid_that_cannot_be_says_why():
    with pytest.raises(ValueError, match="give two directions"):
        Grid.centred(centre=(0, 0, 0), x_axis=(1, 0, 0), y_axis=(2, 0, 0), voxel_mm=1, shape=(1, 2, 2))
    with pytest.raises(ValueError, match="at least one point each way"):
        Grid.slice_xy(voxel_mm=1, shape=(0, 4))
    with pytest.raises(ValueError, match="voxel_mm is -1"):
        Grid.slice_xy(voxel_mm=-1, shape=(4, 4))
