"""Flats estimated from projections: right where the sample leaves a pixel, and replaced by the first real ones."""

from __future__ import annotations

import numpy as np
import pytest
from analytic_balls import BEAM, DARK, Ball, darks, line_integrals, make_block

from bluesky_jit.tomo.corrections.flat_estimate import MOST_USED, estimate_flat, evenly
from bluesky_jit.tomo.geometry import ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection

GEOMETRY = ParallelGeometry(n_u=96, n_v=20, pixel_mm=0.5)
N = 120
ANGLES = np.arange(N) * 2 * np.pi / N
MU = 0.02
OFF_AXIS = [Ball((9, 2, 0), 6, MU), Ball((-8, -8, 1), 4, MU), Ball((2, 12, -1), 3, 2 * MU)]
"""Nothing of it stays in front of a pixel."""
ON_AXIS = [*OFF_AXIS, Ball((0, 0, 0), 5, MU)]
BEAM_OF = 0.25 * BEAM
"""Noise of a percent or so."""
XY = Grid.slice_xy(voxel_mm=0.5, shape=(80, 80))


@pytest.fixture(scope="module")
def true_flat() -> np.ndarray:
    """A beam that falls off to the sides, seen by pixels whose gains differ by 3 %."""
    u = np.linspace(-1, 1, GEOMETRY.n_u)
    gains = np.random.default_rng(5).normal(1.0, 0.03, (GEOMETRY.n_v, GEOMETRY.n_u))
    return BEAM_OF * (1 - 0.3 * u**2) * gains + DARK


def taken(balls: list[Ball], flat: np.ndarray, *, seed: int = 0) -> np.ndarray:
    expected = (flat - DARK) * np.exp(-line_integrals(GEOMETRY, balls, ANGLES))
    return (np.random.default_rng(seed).poisson(expected) + DARK).astype(np.uint16)


def estimated(counts: np.ndarray) -> np.ndarray:
    return estimate_flat(lambda rows: counts[:, rows], GEOMETRY.n_v)


def test_where_the_sample_leaves_every_pixel_flats_are_known_to_a_percent(true_flat: np.ndarray) -> None:
    flat = estimated(taken(OFF_AXIS, true_flat))
    error = flat / true_flat - 1
    assert flat.dtype == np.float32
    assert np.sqrt(np.mean(error**2)) < 0.015
    assert abs(error.mean()) < 0.01


def test_the_gains_of_pixels_are_known_better_than_a_single_frame_shows_them(true_flat: np.ndarray) -> None:
    counts = taken([], true_flat)
    ratio = estimated(counts) / true_flat
    single = (counts[0].astype(float)) / true_flat
    assert ratio.std() < 0.5 * single.std()


def test_where_the_sample_never_leaves_a_pixel_the_flat_is_too_low_and_nowhere_else(true_flat: np.ndarray) -> None:
    error = estimated(taken(ON_AXIS, true_flat)) / true_flat - 1
    middle, side = error[8:12, 46:50], error[8:12, [2, 3, 92, 93]]
    assert middle.mean() == pytest.approx(np.exp(-2 * 5 * MU) - 1, abs=0.04)
    assert abs(side.mean()) < 0.02


def test_slices_are_right_with_estimated_flats_and_as_if_nothing_had_been_when_real_ones_come(
    true_flat: np.ndarray,
) -> None:
    counts, flats = taken(OFF_AXIS, true_flat), np.repeat(np.rint(true_flat)[None], 2, axis=0)
    made = FilteredBackprojection(GEOMETRY, n_projections=N)
    made.push(darks(GEOMETRY))
    made.push(make_block("projection", counts, angles_rad=ANGLES))
    assert made.slices((XY,)) is None
    made.estimate_flats()
    assert made.settle()
    assert made.dark_flat.flats_are_estimated
    estimate = made.slices((XY,))
    made.push(make_block("flat", flats))
    assert made.settle()
    assert not made.dark_flat.flats_are_estimated
    real = made.slices((XY,))
    expected = FilteredBackprojection(GEOMETRY, n_projections=N)
    for block in (darks(GEOMETRY), make_block("flat", flats), make_block("projection", counts, angles_rad=ANGLES)):
        expected.push(block)
    alone = expected.slices((XY,))
    assert estimate is not None
    assert real is not None
    assert alone is not None
    np.testing.assert_allclose(real.images[0], alone.images[0], atol=1e-6)
    points = XY.points()
    balls = [np.linalg.norm(points - np.array(ball.centre), axis=-1) < 0.7 * ball.radius for ball in OFF_AXIS]
    for ball, inside in zip(OFF_AXIS, balls, strict=True):
        assert estimate.images[0][inside].mean() == pytest.approx(ball.mu, rel=0.1)
    truth = sum(ball.attenuation(points) for ball in OFF_AXIS)
    field = np.hypot(points[..., 0], points[..., 1]) < 18
    assert np.sqrt(np.mean((estimate.images[0] - truth)[field] ** 2)) < 0.2 * MU


def test_projections_that_show_no_beam_are_no_flats() -> None:
    made = FilteredBackprojection(GEOMETRY, n_projections=N)
    made.push(darks(GEOMETRY))
    dark = np.full((N, GEOMETRY.n_v, GEOMETRY.n_u), DARK)
    made.push(make_block("projection", dark, angles_rad=ANGLES))
    with pytest.raises(ValueError, match="Did the shutter open"):
        made.estimate_flats()
    assert not made.ready


def test_without_projections_there_is_nothing_to_estimate_from() -> None:
    with pytest.raises(ValueError, match="take flats"):
        FilteredBackprojection(GEOMETRY, n_projections=N).estimate_flats()


def test_of_many_projections_some_are_looked_at_evenly() -> None:
    np.testing.assert_array_equal(evenly(5), np.arange(5))
    some = evenly(10 * MOST_USED)
    assert (len(some), some[0], some[-1]) == (MOST_USED, 0, 10 * MOST_USED - 1)
    assert np.ptp(np.diff(some)) <= 1
