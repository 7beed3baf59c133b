"""Filtered backprojection returns the attenuation itself, in 1/mm, against balls of exactly known line integrals."""

from dataclasses import replace

import numpy as np
import pytest
from analytic_balls import Ball, counts_of, darks, flats, make_block, projections
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection
from sim_devices.materials import Material
from sim_devices.phantom import experiment

MU = 0.02
N = 360
TURN = 2 * np.pi
CONE = ConeGeometry(n_u=128, n_v=8, pixel_mm=0.8, source_axis_mm=441.4, source_detector_mm=1069)
PARALLEL = ParallelGeometry(n_u=128, n_v=4, pixel_mm=0.33)
BALLS = [Ball((1.5, -2, 0), 14, MU), Ball((6, 3, 0), 3, -MU / 2), Ball((-5, -4, 0), 4, MU)]
SOFT = [replace(ball, soft=True) for ball in BALLS]
GOLDEN = np.pi * (3 - np.sqrt(5))


def reconstructed(geometry, angles, *, balls=BALLS, acquisition=None, n_projections=None):
    result = FilteredBackprojection(geometry, n_projections=n_projections or len(angles))
    result.push(darks(geometry))
    result.push(flats(geometry))
    result.push(projections(geometry, balls, angles, acquisition))
    result.settle(drained=True)
    return result


def image_of(result, grid):
    made = result.slices((grid,))
    assert made is not None
    return made.images[0]


def errors(image, grid, balls):
    """Return the errors over the well covered middle, as parts of MU."""
    points = grid.points()
    truth = sum(ball.attenuation(points) for ball in balls)
    return (image - truth)[np.linalg.norm(points[..., :2], axis=-1) < 17] / MU


def rms_error(image, grid, balls):
    """Return the rms error over the well covered middle, as a part of MU."""
    return float(np.sqrt(np.mean(errors(image, grid, balls) ** 2)))


MID_PLANE = Grid.slice_xy(voxel_mm=0.33, shape=(100, 100))


@pytest.mark.parametrize(
    ("geometry", "angles"),
    [
        (CONE, np.arange(2 * N) * TURN / (2 * N)),
        (PARALLEL, np.arange(N) * np.pi / N),
        (PARALLEL, np.arange(2 * N) * TURN / (2 * N)),
    ],
    ids=["cone", "parallel 180°", "parallel 360°"],
)
def test_the_mid_plane_is_right_to_two_thousandths(geometry, angles):
    image = image_of(reconstructed(geometry, angles, balls=SOFT), MID_PLANE)
    assert rms_error(image, MID_PLANE, SOFT) < 2e-3
    assert abs(errors(image, MID_PLANE, SOFT).mean()) < 5e-4


@pytest.mark.parametrize("name", ["A", "B"])
def test_the_tablet_in_its_jar_is_right_to_two_thousandths_four_voxels_from_edges(name):
    geometry = replace(CONE, n_u=256, n_v=24, pixel_mm=0.4)
    phantom = experiment(name, seed=1, radius_mm=geometry.radius_mm, half_height_mm=geometry.radius_mm)
    angles = np.arange(2 * N) * TURN / (2 * N)
    result = FilteredBackprojection(geometry, n_projections=len(angles))
    result.push(darks(geometry))
    result.push(flats(geometry))
    result.push(make_block("projection", counts_of(seen_by_pixels(phantom, geometry, angles)), angles_rad=angles))
    across = int(2 * geometry.radius_mm / geometry.voxel_mm)
    slab = Grid.volume(voxel_mm=geometry.voxel_mm, shape=(9, across, across))
    truth, sphere = phantom.attenuation(slab, TIME_S), np.linalg.norm(np.mgrid[-4:5, -4:5, -4:5], axis=0) <= 4
    from_edges = maximum_filter(truth, footprint=sphere) == minimum_filter(truth, footprint=sphere)
    error = image_of(result, slab)[4] - truth[4]
    fluid = phantom.attenuations()[Material.FLUID]
    error = error[from_edges[4] & (truth[4] > 0)] / fluid
    assert len(error) > 10_000
    assert abs(error.mean()) < 1e-3
    assert np.sqrt(np.mean(error**2)) < 2e-3


TIME_S = 60.0


def seen_by_pixels(phantom, geometry, angles):
    """Return line integrals averaged over each pixel, as a detector whose point spread is 0.7 pixels sees them."""
    fine = replace(geometry, n_u=2 * geometry.n_u, n_v=2 * geometry.n_v, pixel_mm=geometry.pixel_mm / 2)
    integrals = (phantom.line_integrals(fine, angle, TIME_S) for angle in angles)
    pixels = np.stack([frame.reshape(geometry.n_v, 2, geometry.n_u, 2).mean(axis=(1, 3)) for frame in integrals])
    return gaussian_filter(pixels, (0, 0.7, 0.7))


@pytest.mark.parametrize("geometry", [CONE, PARALLEL], ids=["cone", "parallel"])
def test_a_tilted_slice_shows_the_same_object(geometry):
    tall = replace(geometry, n_u=64, n_v=48)
    balls = [Ball((1, 2, 0.2), 5.0, MU, soft=True)]
    grid = Grid.centred(centre=(1, 2, 0), x_axis=(1, 0.4, 0.2), y_axis=(0, 1, 0.5), voxel_mm=0.3, shape=(1, 40, 40))
    assert rms_error(image_of(reconstructed(tall, SCANS["sequential"], balls=balls), grid), grid, balls) < 2e-3


def interlaced(n, passes):
    return np.concatenate([np.arange(n)[start::passes] for start in range(passes)]) * TURN / n


SCANS = {
    "sequential": np.arange(N) * TURN / N,
    "from another angle on": 2.1 + np.arange(N) * TURN / N,
    "backwards": -np.arange(N) * TURN / N,
    "golden": GOLDEN * np.arange(N),
    "interlaced": interlaced(N, 8),
    "two turns": np.arange(N) * 2 * TURN / N,
    "two turns and a half": np.arange(450) * 2.5 * TURN / 450,
    "uneven": np.arange(N) * TURN / N + np.random.default_rng(3).uniform(-0.006, 0.006, N),
    "denser on one side": np.cumsum(np.where(np.arange(N) < 240, 0.5, 2.0)) * TURN / N,
}


@pytest.mark.parametrize("angles", SCANS.values(), ids=SCANS.keys())
@pytest.mark.parametrize("geometry", [CONE, PARALLEL], ids=["cone", "parallel"])
def test_the_scale_is_one_for_every_order_of_angles_in_each_half(geometry, angles):
    result = reconstructed(geometry, angles)
    assert_scale_is_one(result)


@pytest.mark.parametrize("geometry", [CONE, PARALLEL], ids=["cone", "parallel"])
@pytest.mark.parametrize("lost", [[100], [100, 102, 104], [359]], ids=["one", "three of one half", "the last"])
def test_lost_frames_leave_the_scale_of_both_halves_at_one(geometry, lost):
    acquisition = np.delete(np.arange(N), lost)
    result = reconstructed(geometry, acquisition * TURN / N, acquisition=acquisition, n_projections=N)
    assert_scale_is_one(result)


def assert_scale_is_one(result):
    inside = Grid.slice_xy(voxel_mm=0.4, shape=(16, 16)).moved((1, -10, 0))
    u, v = result.pairs((inside,))[0, :, 0]
    full = image_of(result, inside)
    assert [full.mean() / MU, u.mean() / MU, v.mean() / MU] == pytest.approx([1, 1, 1], abs=2e-3)


def test_half_the_arc_gives_about_half_the_object():
    half = image_of(reconstructed(PARALLEL, np.arange(N // 4) * TURN / N), MID_PLANE)
    assert half.mean() == pytest.approx(
        image_of(reconstructed(PARALLEL, SCANS["sequential"]), MID_PLANE).mean() / 2, rel=0.05
    )


@pytest.mark.parametrize("offset_mm", [1.5, -3.0])
@pytest.mark.parametrize("kind", ["cone", "parallel"])
def test_an_axis_off_the_detectors_centre_is_reconstructed_in_place(kind, offset_mm):
    # A wide fan, so that the weight of the offset counts.
    detector = {"n_u": 160, "n_v": 8, "axis_offset_mm": offset_mm}
    if kind == "cone":
        geometry = ConeGeometry(**detector, pixel_mm=0.66, source_axis_mm=50, source_detector_mm=100)
    else:
        geometry = ParallelGeometry(**detector, pixel_mm=0.33)
    image = image_of(reconstructed(geometry, np.arange(2 * N) * TURN / (2 * N), balls=SOFT), MID_PLANE)
    assert rms_error(image, MID_PLANE, SOFT) < 2e-3


@pytest.mark.parametrize("degrees", [240, 270, 320])
@pytest.mark.parametrize("offset_mm", [0.0, -3.0])
def test_part_of_a_turn_of_a_wide_fan_is_right_to_two_thousandths(degrees, offset_mm):
    geometry = ConeGeometry(
        n_u=160, n_v=8, pixel_mm=0.62, source_axis_mm=50, source_detector_mm=100, axis_offset_mm=offset_mm
    )
    result = reconstructed(geometry, 0.4 + np.deg2rad(np.arange(0, degrees, 0.5)), balls=SOFT)
    assert result.complete
    assert rms_error(image_of(result, MID_PLANE), MID_PLANE, SOFT) < 2e-3
    u, v = result.pairs((MID_PLANE,))[0, :, 0]
    assert abs(errors(u, MID_PLANE, SOFT).mean()) < 5e-4
    assert abs(errors(v, MID_PLANE, SOFT).mean()) < 5e-4


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("kind", ["cone", "parallel"])
def test_a_detector_that_sees_one_side_is_right_to_two_thousandths(kind, side):
    detector = {"n_u": 104, "n_v": 8, "axis_offset_mm": 1.0, "extended_field": True}
    if kind == "cone":
        shift = {"pixel_mm": 0.66, "detector_u_mm": side * 34 * 0.66}
        geometry = ConeGeometry(**detector, **shift, source_axis_mm=50, source_detector_mm=100)
    else:
        geometry = ParallelGeometry(**detector, pixel_mm=0.33, detector_u_mm=side * 34 * 0.33)
    result = reconstructed(geometry, np.arange(2 * N) * TURN / (2 * N), balls=SOFT)
    assert result.complete
    assert rms_error(image_of(result, MID_PLANE), MID_PLANE, SOFT) < 2e-3
