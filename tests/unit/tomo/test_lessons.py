"""One test for each fault that the software before this one had; other files test the same things more closely."""

import numpy as np
import pytest
from analytic_balls import Ball, counts_of, darks, flats, line_integrals, make_block

from bluesky_jit.tomo.corrections.phase import make_phase_filter
from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection
from bluesky_jit.tomo.ramp import filtered, make_filter

MU = 0.03
CONE = ConeGeometry(n_u=64, n_v=4, pixel_mm=0.8, source_axis_mm=200, source_detector_mm=400)
PARALLEL = ParallelGeometry(n_u=64, n_v=4, pixel_mm=0.4)
BALL = Ball((1.0, -0.5, 0), 9, MU)
SLICE = Grid.slice_xy(voxel_mm=0.4, shape=(50, 50))
MIDDLE = Grid.slice_xy(voxel_mm=0.4, shape=(8, 8))


def reconstructed(geometry, n, *, balls=(BALL,), counts=None, **options):
    angles = np.arange(n) * 2 * np.pi / n
    counts = counts_of(line_integrals(geometry, balls, angles)) if counts is None else counts
    result = FilteredBackprojection(geometry, n_projections=n, **options)
    result.push(darks(geometry))
    result.push(flats(geometry))
    result.push(make_block("projection", counts, angles_rad=angles))
    return result


def image(reconstruction, grid=SLICE):
    made = reconstruction.slices((grid,))
    assert made is not None
    return made.images[0]


@pytest.mark.parametrize("n", [60, 181, 720])
@pytest.mark.parametrize("geometry", [CONE, PARALLEL], ids=["cone", "parallel"])
def test_grey_values_do_not_scale_with_the_number_of_projections(geometry, n):
    assert image(reconstructed(geometry, n), MIDDLE).mean() == pytest.approx(MU, rel=3e-3)


@pytest.mark.parametrize("factor", [0.01, 25.0])
def test_no_magic_divisor_grey_values_follow_the_unit_of_length_alone(factor):
    # Everything `factor` times as large, and the material as much thinner: the same counts, and values in 1/mm.
    large = ConeGeometry(
        n_u=64, n_v=4, pixel_mm=0.8 * factor, source_axis_mm=200 * factor, source_detector_mm=400 * factor
    )
    ball = Ball((1.0 * factor, -0.5 * factor, 0), 9 * factor, MU / factor)
    grid = Grid.slice_xy(voxel_mm=0.4 * factor, shape=(50, 50))
    expected = image(reconstructed(CONE, 90)) / factor
    np.testing.assert_allclose(
        image(reconstructed(large, 90, balls=[ball]), grid), expected, atol=1e-3 * np.abs(expected).max()
    )


def test_the_logarithm_of_counts_at_or_below_the_dark_is_never_taken():
    angles = np.arange(90) * 2 * np.pi / 90
    counts = counts_of(line_integrals(PARALLEL, [BALL], angles))
    counts[3], counts[10, 1, 20:30], counts[40, :, 5] = 0, 100, 50
    reconstruction = reconstructed(PARALLEL, 90, counts=counts)
    assert np.isfinite(image(reconstruction)).all()
    assert reconstruction.clipped_fraction > 0


def test_the_cones_weight_is_applied_before_the_ramp_and_not_after():
    wide = ConeGeometry(n_u=64, n_v=3, pixel_mm=2.0, source_axis_mm=50, source_detector_mm=100)
    row_filter = make_filter(wide)
    frame = np.zeros((3, 64), np.float32)
    frame[1, 4] = 1.0
    response = filtered(frame, row_filter)[1]
    distance = np.hypot(100, (4 - 31.5) * 2.0)
    # Every pixel of the response has the weight of the ray that was measured, none that of its own.
    centred = np.zeros((3, 64), np.float32)
    centred[1, 31] = 1.0
    kernel = filtered(centred, row_filter)[1, 31:] / row_filter.weight[1, 31]
    np.testing.assert_allclose(response[4:37], 100 / distance * kernel, rtol=1e-3, atol=1e-6)


def test_the_brackets_of_paganins_filter_are_where_they_belong():
    response = make_phase_filter(PARALLEL, delta_beta=500.0, energy_kev=20.0, propagation_mm=1e4).response
    area = 1.2398419843320026e-6 / 20 * 1e4 * 500 / (4 * np.pi)
    k_squared = (np.pi * 16 / (64 * 0.4)) ** 2
    right, wrong = 1 / (1 + area * k_squared), 1 / (1 + area) * k_squared
    assert response[0, 16] == pytest.approx(right, rel=1e-6)
    assert response[0, 16] != pytest.approx(wrong, rel=0.1)


def test_a_window_of_whole_turns_never_mixes_two_scans():
    n = 60
    angles = np.arange(3 * n) * 2 * np.pi / n
    objects = [BALL, Ball((-2, 1, 0), 5, 2 * MU), Ball((0, 3, 0), 4, MU)]
    reconstruction = FilteredBackprojection(CONE, n_projections=n, window="whole-turns")
    reconstruction.push(darks(CONE))
    reconstruction.push(flats(CONE))
    alone = [image(reconstructed(CONE, n, balls=[ball])) for ball in objects]
    for number, angle in enumerate(angles):
        counts = counts_of(line_integrals(CONE, [objects[number // n]], [angle]))
        reconstruction.push(make_block("projection", counts, angles_rad=[angle], acquisition=[number]))
        if number >= n - 1 and number % 7 == 3:
            shown = alone[(number + 1) // n - 1]
            np.testing.assert_allclose(image(reconstruction), shown, atol=1e-5 * np.abs(shown).max())


def test_there_is_no_limit_of_1024_projections():
    n = 1500
    angles = np.arange(n) * 2 * np.pi / n
    counts = counts_of(line_integrals(PARALLEL, [BALL], angles))
    reconstruction = reconstructed(PARALLEL, n, counts=counts)
    assert reconstruction.window_count == n
    whole = image(reconstruction)
    assert image(reconstruction, MIDDLE).mean() == pytest.approx(MU, rel=3e-3)
    counts[1400] = counts_of(np.zeros((4, 64)))
    assert np.abs(image(reconstructed(PARALLEL, n, counts=counts)) - whole).max() > 1e-4 * MU
