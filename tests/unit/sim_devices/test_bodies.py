"""Chords and membership of spheres and cylinders, against formulas that a reader can check."""

import numpy as np
import pytest

from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from sim_devices.bodies import attenuation, cylinder, joined, line_integrals, spheres

MU = np.array([0.0, 1.0])


def chords(bodies, geometry, angle_rad=0.0):
    return line_integrals(bodies, bodies.contrasts(MU), geometry, angle_rad)


def sphere(centre, radius):
    return spheres(np.array([centre]), np.array([radius]), material=1, displaced=0)


def test_sphere_in_parallel_beam_has_the_textbook_chord():
    geometry = ParallelGeometry(n_u=41, n_v=31, pixel_mm=0.1)
    u, v = (np.arange(41) - 20) * 0.1, (np.arange(31) - 15) * 0.1
    distance = np.hypot(u[None, :] - 0.35, v[:, None] + 0.2)
    expected = 2 * np.sqrt(np.maximum(1.1**2 - distance**2, 0))
    np.testing.assert_allclose(chords(sphere((0.35, 7.0, -0.2), 1.1), geometry), expected, atol=1e-6)


def test_sphere_in_cone_beam_has_the_chord_at_its_distance_from_the_ray():
    geometry = ConeGeometry(n_u=33, n_v=25, pixel_mm=0.4, source_axis_mm=30.0, source_detector_mm=60.0)
    centre, radius = np.array([1.0, -2.0, 0.5]), 1.5
    source = np.array([0.0, -30.0, 0.0])
    u, v = (np.arange(33) - 16) * 0.4, (np.arange(25) - 12) * 0.4
    pixels = np.stack(np.broadcast_arrays(u[None, :], 30.0, v[:, None]), axis=-1)
    rays = (pixels - source) / np.linalg.norm(pixels - source, axis=-1, keepdims=True)
    distance = np.linalg.norm(np.cross(centre - source, rays), axis=-1)
    expected = 2 * np.sqrt(np.maximum(radius**2 - distance**2, 0))
    np.testing.assert_allclose(chords(sphere(centre, radius), geometry), expected, atol=1e-5)


@pytest.mark.parametrize("angle_rad", [0.0, 0.9, 4.0])
def test_sphere_casts_its_shadow_where_the_projection_matrix_says(angle_rad):
    geometry = ConeGeometry(
        n_u=101, n_v=81, pixel_mm=0.3, source_axis_mm=60.0, source_detector_mm=100.0, axis_offset_mm=0.8
    )
    centre = (2.0, -3.0, 1.5)
    uw, vw, w = geometry.matrices(np.array([angle_rad]))[0] @ [*centre, 1.0]
    image = chords(sphere(centre, 0.4), geometry, angle_rad).astype(np.float64)
    v, u = np.indices(image.shape)
    assert np.sum(u * image) / image.sum() == pytest.approx(uw / w, abs=0.1)
    assert np.sum(v * image) / image.sum() == pytest.approx(vw / w, abs=0.1)


def test_cylinders_across_and_along_the_beam_have_width_and_length_as_chords():
    geometry = ParallelGeometry(n_u=3, n_v=3, pixel_mm=0.1)
    size = {"low_mm": -2.0, "high_mm": 3.0, "radius_mm": 0.7, "material": 1, "displaced": 0}
    across, along = cylinder(axis=(0, 0, 1), **size), cylinder(axis=(0, 1, 0), **size)
    assert chords(across, geometry)[1, 1] == pytest.approx(1.4)
    assert chords(along, geometry)[1, 1] == pytest.approx(5.0)
    assert chords(along, geometry, np.pi / 2)[1, 1] == pytest.approx(1.4)


def test_leaning_cylinder_is_cut_by_its_ends():
    geometry = ParallelGeometry(n_u=1, n_v=1, pixel_mm=0.1)
    lean = 0.3
    flat = cylinder(
        axis=(0, np.sin(lean), np.cos(lean)), low_mm=-0.1, high_mm=0.1, radius_mm=5.0, material=1, displaced=0
    )
    assert chords(flat, geometry)[0, 0] == pytest.approx(0.2 / np.sin(lean), rel=1e-6)


def test_bodies_outside_the_detector_leave_no_trace():
    geometry = ConeGeometry(n_u=16, n_v=16, pixel_mm=0.1, source_axis_mm=50.0, source_detector_mm=80.0)
    assert not chords(sphere((30.0, 0.0, 0.0), 1.0), geometry).any()
    assert not chords(sphere((0.0, 0.0, 20.0), 1.0), geometry).any()


def test_bodies_without_volume_are_left_out():
    assert len(spheres(np.zeros((3, 3)), np.array([1.0, 0.0, -1.0]), material=1, displaced=0)) == 1
    assert len(cylinder(low_mm=0.0, high_mm=0.0, radius_mm=1.0, material=1, displaced=0)) == 0


def test_points_inside_get_the_contrast_on_any_lattice():
    size = {"low_mm": -0.3, "high_mm": 0.9, "radius_mm": 0.4, "material": 1, "displaced": 0}
    bodies = joined([sphere((0.5, -0.2, 0.1), 0.8), cylinder(centre_mm=(-1.0, 0.5, 0.0), axis=(1, 1, 2), **size)])
    lattices = [
        Grid.centred(centre=(0.1, 0, 0), x_axis=(1, 2, 0.3), y_axis=(0, 1, -1), voxel_mm=0.11, shape=(7, 30, 25)),
        Grid(origin=(-2, -2, -1), x_step=(0.2, 0.1, 0), y_step=(0, 0.2, 0.1), z_step=(0, 0, 0.2), shape=(9, 20, 20)),
        Grid(origin=(-2, -0.2, 0.1), x_step=(0.1, 0, 0), y_step=(0, 0, 0), z_step=(0, 0, 0), shape=(1, 1, 40)),
    ]
    axis = np.array([1, 1, 2]) / np.sqrt(6)
    for grid in lattices:
        points = grid.points()
        expected = (np.linalg.norm(points - [0.5, -0.2, 0.1], axis=-1) <= 0.8).astype(float)
        relative = points - [-1.0, 0.5, 0.0]
        height = relative @ axis
        across = np.linalg.norm(relative - height[..., None] * axis, axis=-1)
        expected += (across <= 0.4) & (height >= -0.3) & (height <= 0.9)
        assert expected.any()
        np.testing.assert_array_equal(attenuation(bodies, bodies.contrasts(MU), grid), expected)
