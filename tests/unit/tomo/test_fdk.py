"""Filtered backprojection returns the attenuation itself, in 1/mm, against balls of exactly known line integrals."""

from dataclasses import replace

import numpy as np
import pytest
from analytic_balls import Ball, darks, flats, projections

from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection

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
    return result


def image_of(result, grid):
    made = result.slices((grid,))
    assert made is not None
    return made.images[0]


def rms_error(image, grid, balls):
    """Return the rms error over the well covered middle, as a part of MU."""
    points = grid.points()
    truth = sum(ball.attenuation(points) for ball in balls)
    return float(np.sqrt(np.mean((image - truth)[np.linalg.norm(points[..., :2], axis=-1) < 17] ** 2))) / MU


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
    u, v = result.pairs((inside,))[0]
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
