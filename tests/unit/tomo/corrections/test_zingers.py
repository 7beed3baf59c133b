"""Zingers that were put in are found and taken out; the sample stays as it is."""

import numpy as np
import pytest

from bluesky_jit.tomo.corrections.zingers import remove_zingers

PHOTONS = 10_000
THRESHOLD = 0.1


def phantom(shape=(200, 240)):
    """Return a transmission with edges, a grid of thin bars, a slit and a deep shadow."""
    v, u = np.mgrid[0 : shape[0], 0 : shape[1]]
    integrals = np.where((u - 90) ** 2 + (v - 100) ** 2 < 60**2, 1.2, 0.0)
    integrals[20:40, 20:200:4] += 2.0
    integrals[60:140, 180:220] = 3.0
    integrals[60:140, 200] = 0.0
    integrals[150:190, 30:200] = 6.0
    for slope in (0.3, 0.5, 1.0):
        along = np.arange(40)
        integrals[(150 + slope * along).astype(int), 40 + along] = 0.0
    return np.exp(-integrals).astype(np.float32)


def noisy(transmission, seed=1):
    return (np.random.default_rng(seed).poisson(PHOTONS * transmission) / PHOTONS).astype(np.float32)


def test_every_zinger_is_found_wherever_it_lies_and_nothing_else():
    clean = noisy(phantom())
    rng = np.random.default_rng(2)
    edges = [(0, 0), (0, 51), (199, 239), (100, 0), (198, 3)]
    # Apart from each other, for two hits that are two pixels apart hide each other.
    expected = np.array([*edges, *(8 * rng.permutation(np.mgrid[1:24, 1:29].reshape(2, -1).T)[:60])])
    hit = clean.copy()
    hit[expected[:, 0], expected[:, 1]] += 2.5
    cleaned = hit.copy()
    assert remove_zingers(cleaned, THRESHOLD) == len(expected)
    changed = np.argwhere(cleaned != hit)
    assert {tuple(place) for place in changed} == {tuple(place) for place in expected}


def test_a_zinger_is_replaced_by_what_lies_around_it():
    flat = noisy(np.full((60, 60), 0.4, dtype=np.float32))
    flat[30, 20] = 2.0
    assert remove_zingers(flat, THRESHOLD) == 1
    assert flat[30, 20] == pytest.approx(0.4, abs=5 * np.sqrt(0.4 / PHOTONS))


@pytest.mark.parametrize("spread", [(1, 2), (2, 1), (2, 2)])
def test_a_hit_of_up_to_two_pixels_across_goes_as_a_whole(spread):
    flat = noisy(np.full((60, 60), 0.4, dtype=np.float32))
    flat[30 : 30 + spread[0], 20 : 20 + spread[1]] += 0.3
    assert remove_zingers(flat, THRESHOLD) == spread[0] * spread[1]
    assert flat.max() < 0.5


def test_noise_edges_bars_and_slits_of_a_sample_are_left_as_they_are():
    for seed in range(10):
        frame = noisy(phantom(), seed)
        before = frame.copy()
        assert remove_zingers(frame, THRESHOLD) == 0
        np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize("width", [3.0, 4.0, 6.0])
def test_small_round_details_of_a_sample_are_left(width):
    v, u = np.mgrid[0:60, 0:60]
    detail = np.exp(-((v - 30.2) ** 2 + (u - 20.1) ** 2) * 4 * np.log(2) / width**2)
    frame = noisy((0.3 + 0.6 * detail).astype(np.float32))
    assert remove_zingers(frame, THRESHOLD) == 0


def test_a_hit_blurred_by_the_scintillator_is_found():
    v, u = np.mgrid[0:60, 0:60]
    frame = noisy(np.full((60, 60), 0.4, dtype=np.float32))
    frame += np.exp(-((v - 30) ** 2 + (u - 20) ** 2) / (2 * 0.65**2)).astype(np.float32)
    assert remove_zingers(frame, THRESHOLD) >= 1
    assert frame.max() < 0.8


def test_in_the_shadow_of_the_sample_weaker_zingers_are_found():
    shadow = noisy(np.full((60, 60), 0.04, dtype=np.float32))
    shadow[30, 20] += 0.06
    air = noisy(np.ones((60, 60), dtype=np.float32))
    air[30, 20] = air[27:34, 17:24].max() + 0.06
    assert remove_zingers(shadow, THRESHOLD) == 1
    assert remove_zingers(air, THRESHOLD) == 0


def test_a_frame_of_two_rows_is_compared_along_its_rows():
    frame = noisy(np.full((2, 60), 0.5, dtype=np.float32))
    frame[1, 30] = 1.5
    assert remove_zingers(frame, THRESHOLD) == 1
    assert frame[1, 30] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2)])
def test_a_frame_too_small_to_compare_stays(shape):
    assert remove_zingers(np.ones(shape, dtype=np.float32), THRESHOLD) == 0
