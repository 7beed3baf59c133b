"""A live window tells where the axis is from its raw counts."""

from dataclasses import replace

import numpy as np
import pytest
from analytic_balls import counts_of, darks, flats, make_block
from axis_scans import CONE, PARALLEL, TURN, angles, scan

from bluesky_jit.tomo.axis.rows import band_rows, bands_of, rows_of
from bluesky_jit.tomo.corrections.darkflat import DarkFlat
from bluesky_jit.tomo.corrections.transmission import attenuation, make_reference
from bluesky_jit.tomo.live import FilteredBackprojection
from bluesky_jit.tomo.prepare import FrameInfo

N = 120


def filled(geometry, *, start=None, **changes):
    """Return a reconstruction with a window of one turn whose axis is 3.3 pixels off."""
    views = angles(N, TURN)
    reconstruction = FilteredBackprojection(start or geometry, n_projections=N, kernel="numba", **changes)
    reconstruction.push(darks(geometry))
    reconstruction.push(flats(geometry))
    counts = counts_of(scan(geometry, 3.3, views).transpose(1, 0, 2))
    reconstruction.push(make_block("projection", counts, angles_rad=views))
    return reconstruction


@pytest.mark.parametrize("geometry", [PARALLEL, CONE], ids=["parallel", "cone"])
def test_the_axis_of_a_window_is_found_wherever_it_is_set(geometry):
    reconstruction = filled(geometry, start=replace(geometry, axis_offset_mm=-8.0))
    estimate = reconstruction.estimate_axis()
    assert estimate.offset_mm == pytest.approx(3.3 * geometry.voxel_mm, abs=0.1 * geometry.voxel_mm)
    assert estimate.trusted
    reconstruction.set_axis_offset(5.0)
    assert reconstruction.estimate_axis() == estimate


def test_without_flats_there_is_a_reason():
    reconstruction = FilteredBackprojection(PARALLEL, n_projections=N, kernel="numba")
    assert "no flats" in reconstruction.estimate_axis().reason


def test_estimating_leaves_the_flats_of_the_thread_that_pushes_alone():
    reconstruction = filled(PARALLEL)
    before = reconstruction.dark_flat.reference_at(acquisition=3)
    reconstruction.estimate_axis()
    assert reconstruction.dark_flat.reference_at(acquisition=3) is before


def test_each_projection_is_compared_with_flats_of_its_own_time():
    fading = DarkFlat(4, 20)
    fading.add_flats(np.full((1, 4, 20), 40_000, np.uint16), after=0)
    fading.add_flats(np.full((1, 4, 20), 20_000, np.uint16), after=100)
    bands = (slice(0, 2), slice(3, 4))
    counts = [np.full((2, 20), 10_000, np.uint16), np.full((1, 20), 5000, np.uint16)]
    frames = [(FrameInfo(angle_rad=0.0, acquisition=n, time_s=np.nan), counts) for n in (0, 50, 99)]
    rows = band_rows(frames, fading.copy(), bands)
    assert rows.shape == (2, 3, 20)
    flat = np.array([39_900, 29_900, 20_100])
    np.testing.assert_allclose(rows[0], np.log(flat / 10_000)[:, None].repeat(20, axis=1), rtol=1e-5)
    np.testing.assert_allclose(rows[1], np.log(flat / 5000)[:, None].repeat(20, axis=1), rtol=1e-5)


def test_the_window_looks_for_its_axis_with_the_flats_of_all_times(monkeypatch):
    reconstruction = filled(PARALLEL)
    late = make_block("flat", 0.5 * (flats(PARALLEL).counts - 100.0) + 100)
    reconstruction.push(replace(late, after=N))
    seen = []
    monkeypatch.setattr(
        "bluesky_jit.tomo.axis.rows.estimate_axis", lambda rows, *_, **__: seen.append(rows[:, :, 0].mean(axis=0))
    )
    reconstruction.estimate_axis()
    # Air: the flats of its time are between both.
    expected = np.log(np.linspace(1, 0.5, N, endpoint=False) - 0.25 / N)
    np.testing.assert_allclose(seen[0], expected, atol=5e-3)


@pytest.mark.parametrize("n_v", [1, 2, 3, 5, 17, 48, 2048])
def test_bands_lie_apart_and_within_the_detector(n_v):
    bands = bands_of(replace(PARALLEL, n_v=n_v))
    rows = [row for band in bands for row in range(band.start, band.stop)]
    assert rows == sorted(set(rows))
    assert 0 <= rows[0] <= rows[-1] < n_v
    assert len(rows) <= 16


def test_a_cone_is_looked_at_near_the_plane_of_the_central_ray():
    cone = replace(CONE, n_v=101)
    assert bands_of(cone) == (slice(47, 54),)
    assert bands_of(replace(cone, detector_v_mm=-10 * cone.pixel_mm)) == (slice(57, 64),)
    assert bands_of(replace(cone, detector_v_mm=-49 * cone.pixel_mm)) == (slice(96, 101),)


def test_a_band_is_corrected_as_in_the_whole_frame():
    random = np.random.default_rng(2)
    flat = random.uniform(900, 1100, (9, 30)).astype(np.float32)
    flat[4, 7:9] = flat[3, 0] = flat[5, 29] = flat[8, 3] = 0
    reference = make_reference(np.zeros_like(flat), flat)
    counts = random.integers(100, 900, (9, 30)).astype(np.uint16)
    whole, _ = attenuation(counts, reference)
    band = slice(3, 6)
    part, _ = attenuation(counts[band], rows_of(reference, band))
    assert np.array_equal(part, whole[band])
