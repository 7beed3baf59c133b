"""Projections with larger pixels, and the overview that is made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bluesky_jit.tomo.binning import binned_frames, coarser
from bluesky_jit.tomo.corrections.darkflat import DarkFlat
from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry
from bluesky_jit.tomo.live import FilteredBackprojection
from bluesky_jit.tomo.overview import make_overview
from tests.helpers.analytic_balls import Ball, darks, flats, make_block, projections

CONE = ConeGeometry(
    n_u=100, n_v=83, pixel_mm=0.4, source_axis_mm=200.0, source_detector_mm=500.0, detector_u_mm=1.2, detector_v_mm=-0.8
)
ANGLES_RAD = 2 * np.pi * np.arange(40) / 40


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("leans", [{}, {"detector_roll_rad": 0.05, "detector_yaw_rad": 0.1}])
def test_points_land_on_the_large_pixel_that_holds_the_small_one(size, leans):
    geometry = replace(CONE, **leans)
    large = coarser(geometry, size)
    points = np.vstack([np.random.default_rng(0).uniform(-5, 5, (3, 50)), np.ones(50)])
    fine, coarse = (
        (lambda p: p[:, :2] / p[:, 2:])(made.detector_matrices(ANGLES_RAD) @ points) for made in (geometry, large)
    )
    assert coarse == pytest.approx((fine + 0.5) / size - 0.5, abs=1e-9)
    assert (large.n_u, large.n_v) == (100 // size, 83 // size)


def test_counts_are_summed_and_pixels_that_are_dead_or_were_hit_count_nowhere():
    geometry = ParallelGeometry(n_u=12, n_v=6, pixel_mm=1.0)
    scan = FilteredBackprojection(geometry, n_projections=8, kernel="numba")
    dark, flat = np.full((1, 6, 12), 10), np.full((1, 6, 12), 1010)
    flat[0, 0, 0], flat[0, 4, 7] = 10, 5000
    scan.push(make_block("dark", dark))
    scan.push(make_block("flat", flat))
    counts = np.random.default_rng(0).integers(100, 1000, (8, 6, 12))
    scan.push(make_block("projection", counts, angles_rad=np.arange(8) / 8))
    binned = scan.binned(4)
    assert binned is not None
    good = np.ones((6, 12), dtype=int)
    good[0, 0] = good[4, 7] = 0
    summed = (counts * good).reshape(8, 2, 3, 4, 3).sum(axis=(2, 4))
    assert np.array_equal(binned.projections.counts, summed)
    assert binned.dark.counts[0].tolist() == (10 * good.reshape(2, 3, 4, 3).sum(axis=(1, 3))).tolist()
    assert binned.flat.counts[0].tolist() == (1010 * good.reshape(2, 3, 4, 3).sum(axis=(1, 3))).tolist()
    assert binned.projections.angles_rad.tolist() == (np.arange(8) / 8).tolist()


def test_sums_too_large_for_their_type_are_scaled_down_together():
    geometry = ParallelGeometry(n_u=16, n_v=16, pixel_mm=1.0)
    scan = FilteredBackprojection(geometry, n_projections=4, kernel="numba")
    scan.push(make_block("dark", np.full((1, 16, 16), 0)))
    scan.push(make_block("flat", np.full((1, 16, 16), 60_000)))
    scan.push(make_block("projection", np.full((4, 16, 16), 30_000), angles_rad=np.arange(4)))
    binned = scan.binned(4)
    assert binned is not None
    assert int(binned.flat.counts.max()) == 65535
    assert binned.projections.counts == pytest.approx(65535 / 2, abs=1)


def test_there_is_nothing_to_sum_before_flats_and_projections_have_come():
    scan = FilteredBackprojection(CONE, n_projections=40, kernel="numba")
    assert scan.binned(16) is None
    scan.push(flats(CONE))
    assert scan.binned(16) is None
    assert make_overview(scan) is None
    assert binned_frames(scan._window, DarkFlat(83, 100), CONE, 16) is None


def test_an_overview_shows_what_is_there_once_from_each_half():
    ball = Ball((2.0, -1.0, 1.5), 3.0, 0.05, soft=True)
    scan = FilteredBackprojection(CONE, n_projections=40, kernel="numba")
    for block in (darks(CONE), flats(CONE), projections(CONE, [ball], ANGLES_RAD)):
        scan.push(block)
    overview = make_overview(scan, points=50)
    assert overview is not None
    truth = ball.attenuation(overview.grid.points())
    for half in overview.halves:
        assert half.shape == overview.grid.shape
        assert abs(half - truth).max() < 0.1 * truth.max()
