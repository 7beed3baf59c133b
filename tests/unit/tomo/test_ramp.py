"""The ramp against its definition in space, and the weights before it."""

import numpy as np
import pytest

from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry
from bluesky_jit.tomo.ramp import FILTERS, fan_weight, filtered, make_filter, ramp_response

PARALLEL = ParallelGeometry(n_u=50, n_v=40, pixel_mm=0.3)
CONE = ConeGeometry(n_u=50, n_v=40, pixel_mm=0.3, source_axis_mm=30, source_detector_mm=60)


def test_filtering_is_the_plain_convolution_with_the_sampled_ramp():
    rows = np.random.default_rng(1).normal(size=(40, 50))
    distance = np.arange(-49, 50)
    ramp = np.where(distance % 2 == 1, -1 / (np.pi * np.where(distance == 0, 1, distance) * 0.3) ** 2, 0.0)
    ramp[49] = 1 / (4 * 0.3**2)
    expected = [0.3 * np.convolve(row, ramp)[49:-49] for row in rows]
    result = filtered(rows.astype(np.float32), make_filter(PARALLEL))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=2e-5)


def test_rows_are_padded_so_that_they_do_not_reach_round():
    row_filter = make_filter(PARALLEL)
    assert len(row_filter.response) >= 2 * PARALLEL.n_u
    rows = np.zeros((40, 50), dtype=np.float32)
    rows[:, 0] = 1
    assert abs(filtered(rows, row_filter)[0, 49]) < 1e-3


@pytest.mark.parametrize("name", FILTERS)
def test_the_families_agree_at_low_frequencies_and_differ_at_the_highest(name):
    response, ram_lak = ramp_response(512, 0.3, name)[:257], ramp_response(512, 0.3)[:257]
    np.testing.assert_allclose(response[:6], ram_lak[:6], rtol=2e-3)
    at_nyquist = {"ram-lak": 1.0, "shepp-logan": 2 / np.pi, "cosine": 0.0, "hann": 0.0}[name]
    assert response[-1] / ram_lak[-1] == pytest.approx(at_nyquist, abs=1e-9)


def test_the_ramp_rises_with_frequency_and_keeps_a_small_constant_term():
    response = ramp_response(512, 0.3)[:257]
    frequency = np.fft.rfftfreq(512, 0.3)
    np.testing.assert_allclose(response[8:], frequency[8:], rtol=2e-3)
    assert 0 < response[0] < frequency[1]


def test_an_unknown_filter_is_refused_by_name():
    with pytest.raises(ValueError, match="filter is 'boxcar': give one of ram-lak"):
        make_filter(PARALLEL, "boxcar")


def test_a_cone_is_weighted_by_the_cosine_of_its_rays_and_a_parallel_beam_not():
    weight = fan_weight(CONE)
    u, v = (49 - 24.5) * 0.3, (0 - 19.5) * 0.3
    assert weight[0, 49] == pytest.approx(60 / np.sqrt(60**2 + u**2 + v**2))
    np.testing.assert_array_equal(fan_weight(PARALLEL), 1)
