"""From raw counts to filtered values: every correction in its place."""

from dataclasses import replace

import numpy as np
import pytest
from analytic_balls import make_block

from bluesky_jit.tomo.corrections.wanted import Corrections
from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry
from bluesky_jit.tomo.live import FilteredBackprojection
from bluesky_jit.tomo.prepare import FrameInfo, Preparation
from bluesky_jit.tomo.ramp import filtered, make_filter

CONE = ConeGeometry(n_u=50, n_v=40, pixel_mm=0.3, source_axis_mm=30, source_detector_mm=60)
PARALLEL = ParallelGeometry(n_u=50, n_v=40, pixel_mm=0.3)
INFO = FrameInfo(angle_rad=0.0, acquisition=0, time_s=0.0)
SHAPE = (CONE.n_v, CONE.n_u)


def prepared(geometry=CONE, **options):
    preparation = Preparation(geometry, **options)
    preparation.dark_flat.add_darks(np.full((1, *SHAPE), 10, np.uint16))
    preparation.dark_flat.add_flats(np.full((1, *SHAPE), 60_010, np.uint16))
    return preparation


def frame():
    """Return counts of a sample with air at both sides, and its line integrals."""
    v, u = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    integrals = 0.8 + 0.5 * np.sin(0.4 * u) * np.cos(0.3 * v)
    integrals[:, :8] = integrals[:, -8:] = 0
    return np.rint(60_000 * np.exp(-integrals) + 10).astype(np.uint16), integrals


def test_counts_become_filtered_attenuation():
    counts, integrals = frame()
    counts[7, 7], integrals[7, 7] = 0, np.log(60_000 / 0.5)
    result, clipped = prepared().filtered(counts, INFO)
    np.testing.assert_allclose(result, filtered(integrals.astype(np.float32), make_filter(CONE)), atol=2e-3)
    assert clipped == pytest.approx(1 / 2000)


def test_a_rows_weight_comes_before_the_filter():
    counts, integrals = frame()
    weight = np.linspace(0, 2, CONE.n_u)
    result, _ = prepared().filtered(counts, INFO, weight)
    np.testing.assert_allclose(result, filtered((integrals * weight).astype(np.float32), make_filter(CONE)), atol=2e-3)


def test_the_cutoff_reaches_the_filter():
    counts, integrals = frame()
    result, _ = prepared(filter="hann", filter_cutoff=0.5).filtered(counts, INFO)
    expected = filtered(integrals.astype(np.float32), make_filter(CONE, "hann", cutoff=0.5))
    np.testing.assert_allclose(result, expected, atol=1e-3)


def test_a_frame_is_compared_with_flats_of_its_own_time():
    preparation = prepared()
    preparation.dark_flat.add_flats(np.full((1, *SHAPE), 30_010, np.uint16), after=100)
    counts = np.full(SHAPE, 45_010, np.uint16)
    half_way = FrameInfo(angle_rad=0.0, acquisition=50, time_s=np.nan)
    np.testing.assert_allclose(preparation.line_integrals(counts, half_way)[0], 0, atol=5e-3)
    np.testing.assert_allclose(preparation.line_integrals(counts, INFO)[0], np.log(4 / 3), atol=5e-3)


def test_all_corrections_together_give_back_what_was_put_in():
    _, integrals = frame()
    # A hardened beam measures q where one energy would measure p = q + 0.1 q².
    hardened = (np.sqrt(1 + 0.4 * integrals) - 1) / 0.2
    counts = np.rint(0.9 * 60_000 * np.exp(-hardened) + 10).astype(np.uint16)
    spoilt = counts.copy()
    spoilt[20, 3], spoilt[5, 45] = 65_000, 64_000
    wanted = Corrections(zinger_threshold=0.1, air_columns=5, hardening=(1.0, 0.1))
    preparation = prepared(corrections=wanted)
    result, clipped = preparation.line_integrals(spoilt, INFO)
    np.testing.assert_allclose(result, integrals, atol=2e-3)
    assert clipped == 0
    found = preparation.found
    assert (found.frames, found.zingers, found.obstructed) == (1, 2, 0)
    assert found.beam is not None
    assert found.beam.level == pytest.approx(0.9, abs=1e-4)
    assert found.most_drift == pytest.approx(-0.1, abs=1e-4)


def test_without_corrections_a_zinger_stays_and_nothing_is_looked_for():
    counts, _ = frame()
    counts[20, 3] = 65_000
    preparation = prepared()
    assert preparation.line_integrals(counts, INFO)[0][20, 3] == pytest.approx(-np.log(64_990 / 60_000), abs=1e-4)
    assert (preparation.found.zingers, preparation.found.beam) == (0, None)


@pytest.mark.parametrize(
    ("geometry", "corrections", "text"),
    [
        (CONE, Corrections(air_columns=26), "air_columns is 26 at each side and the detector has 50"),
        (CONE, Corrections(ring_width=11, ring_projections=90), "give a width of 1 to 10"),
        (PARALLEL, Corrections(delta_beta=100, energy_kev=20), "propagation_mm is not given"),
        (CONE, Corrections(delta_beta=100, energy_kev=20, propagation_mm=500), "leave propagation_mm out"),
    ],
)
def test_corrections_that_do_not_fit_the_set_up_are_refused(geometry, corrections, text):
    with pytest.raises(ValueError, match=text):
        Preparation(geometry, corrections=corrections)


@pytest.mark.parametrize("kind", ["int32", "float32", "uint8"])
def test_counts_of_another_type_are_refused_before_they_wrap_around(kind):
    reconstruction = FilteredBackprojection(CONE, n_projections=8)
    block = make_block("projection", np.ones((1, *SHAPE)), angles_rad=[0.0])
    with pytest.raises(ValueError, match=f"projection frames are of type {kind}: give raw counts as uint16"):
        reconstruction.push(replace(block, counts=block.counts.astype(kind)))
