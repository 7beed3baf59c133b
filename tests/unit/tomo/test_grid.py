"""What grids are made of: against points worked out by hand."""

import json

import numpy as np
import pytest

from bluesky_jit.tomo.geometry import ConeGeometry
from bluesky_jit.tomo.grid import Grid

SLICE = Grid.slice_xy(z_mm=3, voxel_mm=0.5, shape=(8, 12))


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


def test_a_grid_survives_its_metadata_and_its_repr():
    grid = Grid.centred(centre=(1, 2, 3), x_axis=(1, 1, 0), y_axis=(0, 1, 1), voxel_mm=0.2, shape=(3, 5, 7))
    assert Grid.from_metadata(json.loads(json.dumps(grid.to_metadata()))) == grid
    assert eval(repr(grid)) == grid


def test_a_grid_that_cannot_be_says_why():
    with pytest.raises(ValueError, match="give two directions"):
        Grid.centred(centre=(0, 0, 0), x_axis=(1, 0, 0), y_axis=(2, 0, 0), voxel_mm=1, shape=(1, 2, 2))
    with pytest.raises(ValueError, match="at least one point each way"):
        Grid.slice_xy(voxel_mm=1, shape=(0, 4))
    with pytest.raises(ValueError, match="voxel_mm is -1"):
        Grid.slice_xy(voxel_mm=-1, shape=(4, 4))
    with pytest.raises(ValueError, match=r"origin is \(nan, -1.75, 3.0\): give three finite numbers of mm"):
        SLICE.moved((np.nan, 0, 0))
    with pytest.raises(ValueError, match=r"cannot be made from \['shape'\]: give origin, z_step"):
        Grid.from_metadata({"shape": [1, 2, 2]})


@pytest.mark.parametrize(
    ("normal", "expected"),
    [
        ((0, 0, 2), Grid.slice_xy(voxel_mm=0.5, shape=(4, 6))),
        ((0, -1, 0), Grid.slice_xz(voxel_mm=0.5, shape=(4, 6))),
        ((0.1, 0, 0), Grid.slice_yz(voxel_mm=0.5, shape=(4, 6))),
    ],
)
def test_a_tilted_slice_that_is_not_tilted_is_an_orthogonal_one(normal, expected):
    np.testing.assert_allclose(
        Grid.tilted(normal=normal, voxel_mm=0.5, shape=(4, 6)).points(), expected.points(), atol=1e-12
    )


def test_a_tilted_slice_is_square_to_its_normal_with_rows_up_and_columns_level():
    grid = Grid.tilted(centre=(1, 2, 3), normal=(1, -2, 2), voxel_mm=0.3, shape=(5, 7))
    z, y, x = grid.steps / 0.3
    np.testing.assert_allclose(z, np.array([1, -2, 2]) / 3, atol=1e-12)
    assert x[2] == pytest.approx(0)
    assert y[2] > 0
    assert grid.centre == pytest.approx((1, 2, 3))


def test_a_tilted_slice_turns_in_its_plane_anticlockwise_against_its_normal():
    grid = Grid.tilted(normal=(0, 0, 1), rotation_rad=np.pi / 6, voxel_mm=1, shape=(5, 7))
    np.testing.assert_allclose(grid.x_step, (np.cos(np.pi / 6), 0.5, 0), atol=1e-12)


def test_a_normal_without_a_direction_is_refused():
    with pytest.raises(ValueError, match=r"normal is \(0, 0, 0\): give a direction"):
        Grid.tilted(normal=(0, 0, 0), voxel_mm=1, shape=(4, 4))


@pytest.mark.parametrize(("spacing_mm", "step"), [(None, 0.5), (0.2, 0.2)])
def test_a_slab_lies_around_its_slice(spacing_mm, step):
    slab = SLICE.slab(3, spacing_mm=spacing_mm)
    assert slab.shape == (3, 8, 12)
    np.testing.assert_allclose(slab.points()[1], SLICE.points()[0], atol=1e-12)
    np.testing.assert_allclose(slab.points()[2, 0, 0] - slab.points()[1, 0, 0], (0, 0, step), atol=1e-12)


def test_a_patch_is_a_part_of_its_grid_with_the_same_points():
    slab = SLICE.slab(3)
    patch = slab.patch((1, 2, 4), (2, 5, 6))
    np.testing.assert_allclose(patch.points(), slab.points()[1:3, 2:7, 4:10], atol=1e-12)
    with pytest.raises(ValueError, match="leaves the grid"):
        slab.patch((1, 2, 4), (3, 5, 6))
    with pytest.raises(ValueError, match="leaves the grid"):
        slab.patch((-1, 0, 0), (1, 1, 1))


def test_a_zoom_has_as_many_points_closer_together():
    zoom = SLICE.zoomed(4)
    assert zoom.shape == SLICE.shape
    assert zoom.centre == pytest.approx(SLICE.centre)
    np.testing.assert_allclose(zoom.steps, SLICE.steps / 4)
    assert SLICE.zoomed(2, centre=(1, -1, 3)).centre == pytest.approx((1, -1, 3))
    with pytest.raises(ValueError, match="factor is 0"):
        SLICE.zoomed(0)


def test_a_coarser_grid_covers_the_same_region_with_fewer_points():
    slab = SLICE.slab(4)
    coarse = slab.coarser(2)
    assert coarse.shape == (2, 4, 6)
    blocks = slab.points().reshape(2, 2, 4, 2, 6, 2, 3).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(coarse.points(), blocks, atol=1e-12)
    assert SLICE.coarser(4).shape == (1, 2, 3)
    assert SLICE.coarser(4).z_step == SLICE.z_step
    with pytest.raises(ValueError, match="n is 0"):
        SLICE.coarser(0)


def test_the_preview_covers_the_field_of_view():
    geometry = ConeGeometry(n_u=100, n_v=60, pixel_mm=0.5, source_axis_mm=100, source_detector_mm=400)
    preview = Grid.preview(geometry, 20)
    assert preview.shape[1:] == (20, 20)
    assert preview.shape[0] * preview.z_step[2] == pytest.approx(2 * geometry.half_height_mm, rel=0.05)
    assert 20 * preview.x_step[0] == pytest.approx(2 * geometry.radius_mm)
    assert preview.centre == pytest.approx((0, 0, 0))
