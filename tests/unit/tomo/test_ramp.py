"""The ramp against its definition in space, and the weights before it."""

import numpy as np
import pytest

from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry
from bluesky_jit.tomo.ramp import FILTERS, fan_weight, filter_formula, filtered, make_filter, ramp_response

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


@pytest.mark.parametrize("name", FILTERS)
def test_a_cutoff_squeezes_the_window_and_lets_nothing_pass_beyond(name):
    response, ram_lak = ramp_response(512, 0.3, name, cutoff=0.5)[:257], ramp_response(512, 0.3)[:257]
    whole = ramp_response(512, 0.3, name)[:257] / ram_lak
    np.testing.assert_allclose(response[:128] / ram_lak[:128], whole[:256:2], atol=1e-12)
    assert not response[129:].any()


@pytest.mark.parametrize("cutoff", [0, -0.1, 1.1, float("nan")])
def test_a_cutoff_that_is_no_part_is_refused(cutoff):
    with pytest.raises(ValueError, match=f"filter cutoff is {cutoff}: give a part of the Nyquist frequency"):
        make_filter(PARALLEL, cutoff=cutoff)


def test_the_weight_of_a_cone_comes_before_the_filter_and_not_after():
    rows = np.random.default_rng(5).normal(size=(40, 50)).astype(np.float32)
    weight, ramp = fan_weight(CONE), make_filter(CONE)
    plain = make_filter(ParallelGeometry(n_u=50, n_v=40, pixel_mm=CONE.voxel_mm))
    np.testing.assert_allclose(filtered(rows, ramp), filtered((rows * weight).astype(np.float32), plain), atol=1e-5)
    assert np.abs(filtered(rows, ramp) - weight * filtered(rows, plain)).max() > 1e-3


def test_the_formula_for_any_array_gives_what_the_fast_loop_gives():
    rows = np.random.default_rng(6).normal(size=(40, 50)).astype(np.float32)
    ramp = make_filter(CONE, "hann", cutoff=0.8)
    np.testing.assert_allclose(filter_formula(rows, ramp.weight, ramp.response), filtered(rows, ramp), atol=2e-6)


def test_an_unknown_filter_is_refused_by_name():
    with pytest.raises(ValueError, match="filter is 'boxcar': give one of ram-lak"):
        make_filter(PARALLEL, "boxcar")


def test_a_cone_is_weighted_by_the_cosine_of_its_rays_and_a_parallel_beam_not():
    weight = fan_weight(CONE)
    u, v = (49 - 24.5) * 0.3, (0 - 19.5) * 0.3
    assert weight[0, 49] == pytest.approx(60 / np.sqrt(60**2 + u**2 + v**2))
    np.testing.assert_array_equal(fan_weight(PARALLEL), 1)
