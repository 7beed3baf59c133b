"""Whatever is shifted, turned or measured angle by angle, the reconstruction is the attenuation, in its place."""

from dataclasses import replace

import numpy as np
import pytest
from analytic_balls import Ball, darks, flats, projections

from bluesky_jit.tomo.calibration import SHIFTS, Calibration
from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection

MU = 0.02
CONE = ConeGeometry(n_u=104, n_v=64, pixel_mm=0.8, source_axis_mm=441.4, source_detector_mm=1069)
PARALLEL = ParallelGeometry(n_u=104, n_v=64, pixel_mm=0.33)
BALLS = [
    Ball((1.5, -2, 0.3), 9, MU, soft=True),
    Ball((5, 3, 0), 3, -MU / 2, soft=True),
    Ball((-5, -4, 0), 4, MU, soft=True),
]
SLICES = (Grid.slice_xy(voxel_mm=0.33, shape=(80, 80)), Grid.slice_xz(voxel_mm=0.33, shape=(50, 80)))
WOBBLE = Calibration(
    angles_rad=tuple(np.arange(12) * np.pi / 6),
    **{name: tuple(np.random.default_rng(n).uniform(-1, 1, 12)) for n, name in enumerate(SHIFTS)},
)

SET_UPS = {
    "a shifted detector": {"detector_u_mm": 4, "detector_v_mm": -2, "axis_offset_mm": 1},
    "roll": {"detector_roll_rad": 0.05},
    "pitch": {"detector_pitch_rad": 0.1},
    "yaw": {"detector_yaw_rad": -0.1},
    "all at once": {
        "detector_roll_rad": 0.05,
        "detector_pitch_rad": 0.1,
        "detector_yaw_rad": -0.1,
        "detector_u_mm": 2,
        "detector_v_mm": 1,
        "axis_offset_mm": -1,
    },
    "shifts measured angle by angle": {"calibration": WOBBLE},
    "measured shifts of a leaning detector": {"calibration": WOBBLE, "detector_roll_rad": 0.05},
    "a slightly tilted axis": {"axis_tilt_rad": 0.02},
    "one side of the sample": {"extended_field": True, "detector_u_mm": 13, "detector_yaw_rad": 0.1},
    "one side of a sample that wobbles": {"extended_field": True, "detector_u_mm": -13, "calibration": WOBBLE},
}


def reconstructed(geometry, balls, grids, n=360):
    angles = np.arange(n) * 2 * np.pi / n
    result = FilteredBackprojection(geometry, n_projections=n)
    for block in (darks(geometry), flats(geometry), projections(geometry, balls, angles)):
        result.push(block)
    made = result.slices(grids)
    assert made is not None
    return made.images


@pytest.mark.parametrize("off", SET_UPS.values(), ids=SET_UPS.keys())
@pytest.mark.parametrize("geometry", [CONE, PARALLEL], ids=["cone", "parallel"])
def test_the_image_is_right_to_two_thousandths_in_every_set_up(geometry, off):
    images = reconstructed(replace(geometry, **off), BALLS, SLICES)
    for image, grid in zip(images, SLICES, strict=True):
        points = grid.points()
        truth = sum(ball.attenuation(points) for ball in BALLS)
        inside = np.linalg.norm(points, axis=-1) < 12
        assert np.sqrt(np.mean((image - truth)[inside] ** 2)) < 2e-3 * MU


LAMINOGRAPHY = {
    "parallel": ParallelGeometry(n_u=80, n_v=80, pixel_mm=0.4),
    "cone": ConeGeometry(n_u=80, n_v=80, pixel_mm=0.8, source_axis_mm=100, source_detector_mm=200),
    "cone, axis off the central ray": ConeGeometry(
        n_u=80, n_v=80, pixel_mm=0.8, source_axis_mm=100, source_detector_mm=200, axis_offset_mm=3
    ),
}


@pytest.mark.parametrize("tilt_rad", [0.5, -0.5, 0.9])
@pytest.mark.parametrize("geometry", LAMINOGRAPHY.values(), ids=LAMINOGRAPHY.keys())
def test_laminography_measures_what_lies_outside_the_missing_cone_in_true_units(geometry, tilt_rad):
    ball = Ball((2, 1, -1), 5, MU, soft=True)
    grid = Grid.volume(voxel_mm=0.6, shape=(40, 40, 40))
    (image,) = reconstructed(replace(geometry, axis_tilt_rad=tilt_rad), [ball], (grid,), n=240)
    truth = ball.attenuation(grid.points())
    found, expected = np.fft.fftn(image), np.fft.fftn(truth)
    k_z, k_y, k_x = np.meshgrid(*[np.fft.fftfreq(40)] * 3, indexing="ij")
    from_axis = np.arctan2(np.hypot(k_x, k_y), abs(k_z))
    strong = abs(expected) > 0.03 * abs(expected).max()
    strong[0, 0, 0] = False

    def part_found(where):
        return np.real(np.vdot(expected[where], found[where])) / np.sum(abs(expected[where]) ** 2)

    # No plane of frequencies that is measured comes nearer to the axis than the tilt; without the cosine of the tilt in
    # the ramp, 1 would be 1.14 or 1.61.
    assert part_found(strong & (from_axis > abs(tilt_rad) + 0.15)) == pytest.approx(1, abs=0.02)
    assert part_found(strong & (from_axis < abs(tilt_rad) - 0.15)) == pytest.approx(0, abs=0.06)
