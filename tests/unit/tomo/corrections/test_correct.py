"""Counts become attenuation; what cannot be measured is counted, never NaN."""

import numpy as np
import pytest

from bluesky_jit.tomo.corrections.darkflat import DarkFlat
from bluesky_jit.tomo.corrections.transmission import (
    attenuation,
    fill_dead,
    make_reference,
    transmission,
    transmission_formula,
)


def corrector(dark=100.0, flat=10_100.0, shape=(4, 6)):
    result = DarkFlat(*shape)
    result.add_darks(np.full((1, *shape), dark))
    result.add_flats(np.full((1, *shape), flat))
    return result


def corrected(dark_flat, counts):
    return attenuation(counts, dark_flat.reference_at())


def test_attenuation_is_minus_the_logarithm_of_the_transmission():
    integrals, clipped = corrected(corrector(), np.full((4, 6), 100 + 2500, dtype=np.uint16))
    assert integrals.dtype == np.float32
    np.testing.assert_allclose(integrals, np.log(4), rtol=1e-6)
    assert clipped == 0


def test_darks_and_flats_are_averaged_over_all_that_came():
    rng = np.random.default_rng(2)
    darks, flats = rng.integers(50, 150, (5, 4, 6)), rng.integers(9000, 11_000, (7, 4, 6))
    result = DarkFlat(4, 6)
    result.add_darks(darks[:2])
    result.add_flats(flats[:3])
    result.add_darks(darks[2:])
    result.add_flats(flats[3:])
    assert (result.darks, result.flats) == (5, 7)
    np.testing.assert_allclose(result.reference_at().dark, darks.mean(0), rtol=1e-5)
    np.testing.assert_allclose(result.reference_at().gain, flats.mean(0) - darks.mean(0), rtol=1e-5)


def test_counts_at_or_below_the_dark_are_raised_to_half_a_count_and_counted():
    counts = np.full((4, 6), 5100, dtype=np.uint16)
    counts[0, 0], counts[1, 2], counts[3, 5] = 100, 40, 0
    integrals, clipped = corrected(corrector(), counts)
    assert clipped == pytest.approx(3 / 24)
    assert integrals[1, 2] == pytest.approx(np.log(10_000 / 0.5))
    assert np.isfinite(integrals).all()


def test_the_formula_for_any_array_gives_what_the_fast_loop_gives():
    rng = np.random.default_rng(4)
    dark, flat = rng.uniform(90, 110, (30, 40)), rng.uniform(9000, 11_000, (30, 40))
    flat[3, 5:8] = flat[0] = 0
    reference = make_reference(dark.astype(np.float32), flat.astype(np.float32), saturation=9500)
    counts = rng.integers(0, 10_000, (30, 40)).astype(np.uint16)
    fast, clipped = transmission(counts, reference)
    plain, n_clipped = transmission_formula(counts, reference)
    fill_dead(plain, reference)
    np.testing.assert_allclose(fast, plain, rtol=1e-6)
    assert clipped == n_clipped / counts.size > 0
    assert (fast > 0).all()


def test_brighter_than_the_flat_is_kept_as_negative_so_that_noise_stays_unbiased():
    integrals, clipped = corrected(corrector(), np.full((4, 6), 100 + 10_500, dtype=np.uint16))
    np.testing.assert_allclose(integrals, -np.log(1.05), rtol=1e-5)
    assert clipped == 0


def test_a_dead_pixel_takes_the_mean_of_its_neighbours_in_the_row():
    flat = np.full((1, 4, 6), 10_100.0)
    flat[0, 1, 2:4] = 100
    flat[0, 2, 0] = 90
    result = DarkFlat(4, 6)
    result.add_darks(np.full((1, 4, 6), 100))
    result.add_flats(flat)
    counts = np.full((4, 6), 10_100, dtype=np.uint16)
    counts[1, 4] = 100 + 5000
    counts[1, 2:4] = 0
    integrals, clipped = corrected(result, counts)
    assert result.dead_pixels == 3
    np.testing.assert_allclose(integrals[1, 1:5], np.log(2) * np.array([0, 1, 2, 3]) / 3, atol=1e-6)
    assert integrals[2, 0] == pytest.approx(0, abs=1e-6)
    assert clipped == 0


def test_a_row_of_dead_pixels_reads_zero():
    flat = np.full((1, 8, 6), 10_100.0)
    flat[0, 1] = 0
    result = DarkFlat(8, 6)
    result.add_flats(flat)
    integrals, _ = corrected(result, np.full((8, 6), 3000, dtype=np.uint16))
    assert not integrals[1].any()
    assert np.isfinite(integrals).all()


def test_without_flats_it_is_not_ready_and_says_what_to_do():
    result = DarkFlat(4, 6)
    result.add_darks(np.zeros((1, 4, 6)))
    assert not result.ready
    with pytest.raises(RuntimeError, match="push flats"):
        corrected(result, np.zeros((4, 6), dtype=np.uint16))


def test_without_darks_the_dark_is_zero_and_that_is_flagged():
    result = DarkFlat(4, 6)
    result.add_flats(np.full((1, 4, 6), 8000))
    assert result.ready
    assert result.assumes_no_dark
    integrals, _ = corrected(result, np.full((4, 6), 4000, dtype=np.uint16))
    np.testing.assert_allclose(integrals, np.log(2), rtol=1e-6)
    result.add_darks(np.full((1, 4, 6), 100))
    assert not result.assumes_no_dark


# ── flats without beam ───────────────────────────────────────────────────────────────────────────────────────────────


def dark_frames(seed, n=5, shape=(20, 30)):
    """Return frames with the shutter closed, each with its own read noise."""
    return np.random.default_rng(seed).normal(200, 8, (n, *shape)).round().astype(np.uint16)


def bright_frames(n=5, shape=(20, 30)):
    return np.full((n, *shape), 10_200, dtype=np.uint16)


def shut_shutter(n_flats):
    result = DarkFlat(20, 30)
    result.add_darks(dark_frames(1))
    with pytest.raises(ValueError) as refused:
        result.add_flats(dark_frames(2, n_flats))
    return result, str(refused.value)


@pytest.mark.parametrize("n_flats", [1, 20])
def test_flats_as_dark_as_darks_are_refused_with_their_counts_and_what_to_do(n_flats):
    result, text = shut_shutter(n_flats)
    assert "% of the pixels are dead, and at most 20% may be" in text
    assert "the flats read 200." in text or "the flats read 199." in text
    assert "the darks 200." in text or "the darks 199." in text
    assert "Did the shutter open? Take flats again" in text
    assert (result.ready, result.flats, result.darks) == (False, 0, 5)


def test_good_flats_after_refused_ones_count_alone():
    result, _ = shut_shutter(5)
    result.add_flats(bright_frames())
    assert (result.ready, result.flats) == (True, 5)
    np.testing.assert_allclose(result.reference_at().gain, 10_000, atol=20)


def test_refused_flats_leave_the_good_ones_before_them_as_they_were():
    result = DarkFlat(20, 30)
    result.add_darks(dark_frames(1))
    result.add_flats(bright_frames(20))
    before = result.reference_at().gain
    with pytest.raises(ValueError, match="Did the shutter open"):
        result.add_flats(dark_frames(3, 20))
    assert result.flats == 20
    np.testing.assert_array_equal(result.reference_at().gain, before)


def test_darks_that_show_that_the_flats_before_had_no_beam_make_them_forgotten():
    result = DarkFlat(20, 30)
    result.add_flats(dark_frames(2))
    with pytest.raises(ValueError, match="Did the shutter open"):
        result.add_darks(dark_frames(1))
    assert (result.ready, result.flats, result.darks) == (False, 0, 5)
    result.add_flats(bright_frames())
    np.testing.assert_allclose(result.reference_at().gain, 10_000, atol=20)


def test_darks_with_the_shutter_open_are_refused_when_earlier_darks_and_flats_agree():
    result = DarkFlat(20, 30)
    result.add_darks(dark_frames(1))
    result.add_flats(bright_frames())
    with pytest.raises(ValueError, match="darks with the shutter closed"):
        result.add_darks(bright_frames())
    assert (result.ready, result.flats, result.darks) == (True, 5, 5)
    np.testing.assert_allclose(result.reference_at().gain, 10_000, atol=20)


def test_up_to_a_fifth_of_dead_pixels_is_taken_for_a_bad_detector_and_used():
    flats = bright_frames()
    flats[:, :, :6] = 200
    result = DarkFlat(20, 30)
    result.add_darks(np.full((1, 20, 30), 200))
    result.add_flats(flats)
    result.reference_at()
    assert result.dead_pixels == 20 * 6
    flats[:, 0, 6] = 200
    with pytest.raises(ValueError, match="20% of the pixels are dead"):
        result.add_flats(flats)


# ── saturation ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("saturation", "full"), [(65535, 65535), (4095, 4095)])
def test_full_pixels_of_a_projection_count_as_clipped(saturation, full):
    result = DarkFlat(4, 6, saturation=saturation)
    result.add_flats(np.full((1, 4, 6), 4000, dtype=np.uint16))
    counts = np.full((4, 6), 2000, dtype=np.uint16)
    counts[0, :3] = full
    counts[1, 0] = full - 1
    assert corrected(result, counts)[1] == pytest.approx(3 / 24)


def test_full_pixels_of_flats_are_counted_over_all_flats_and_lent_with_them():
    flats = np.full((4, 20, 30), 60_000, dtype=np.uint16)
    flats[:, 0] = 65535
    result = DarkFlat(20, 30)
    result.add_flats(flats)
    assert result.saturated_flats == pytest.approx(1 / 20)
    result.add_flats(np.full((4, 20, 30), 60_000, dtype=np.uint16))
    assert result.saturated_flats == pytest.approx(1 / 40)
    lent = DarkFlat.borrowed(result)
    assert lent.saturated_flats == pytest.approx(1 / 40)
    lent.add_flats(np.full((1, 20, 30), 60_000, dtype=np.uint16))
    assert lent.saturated_flats == 0
