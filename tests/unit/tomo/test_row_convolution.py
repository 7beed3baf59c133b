"""The convolution of rows against numpy's transforms, for rows of any length and number."""

import numpy as np
import pytest

from bluesky_jit.tomo.row_convolution import convolve_rows, fast_length, make_convolution


def even_response(n, seed=3):
    half = np.random.default_rng(seed).uniform(-1, 1, n // 2 + 1)
    return np.concatenate([half, half[1 : (n + 1) // 2][::-1]])


@pytest.mark.parametrize(
    "shape",
    [(1, 1), (1, 7), (3, 16), (16, 16), (32, 48), (33, 17), (40, 50), (70, 129), (5, 640), (37, 768), (2, 2560)],
)
def test_rows_are_weighted_and_convolved_as_by_numpy(shape):
    rng = np.random.default_rng(1)
    rows, weight = rng.normal(size=(2, *shape)).astype(np.float32)
    n = fast_length(2 * shape[1])
    response = even_response(n)
    spectrum = np.fft.fft(rows.astype(np.float64) * weight, n=n, axis=1) * response
    expected = np.fft.ifft(spectrum, axis=1).real[:, : shape[1]]
    result = convolve_rows(rows, weight, make_convolution(response))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-6 * np.abs(expected).max() + 1e-7)


def test_rows_of_a_pair_do_not_mix():
    rows = np.zeros((32, 40), dtype=np.float32)
    rows[5] = np.random.default_rng(2).normal(size=40)
    result = convolve_rows(rows, np.ones_like(rows), make_convolution(even_response(fast_length(80))))
    assert np.abs(result[5]).max() > 0.1
    assert np.abs(np.delete(result, 5, axis=0)).max() < 1e-6


def test_rows_need_not_lie_side_by_side_in_memory():
    wide = np.random.default_rng(4).normal(size=(40, 60)).astype(np.float32)
    plan = make_convolution(even_response(fast_length(80)))
    weight = np.ones((40, 40), dtype=np.float32)
    np.testing.assert_array_equal(
        convolve_rows(wide[:, 10:50], weight, plan), convolve_rows(wide[:, 10:50].copy(), weight, plan)
    )


@pytest.mark.parametrize(
    ("least", "length"), [(1, 2), (2, 2), (5, 6), (100, 108), (1280, 1296), (1536, 1536), (4097, 4374)]
)
def test_fast_lengths_are_the_next_ones_of_twos_and_threes(least, length):
    assert fast_length(least) == length


def test_every_fast_length_is_the_smallest_there_is():
    smooth = sorted(2**a * 3**b for a in range(14) for b in range(9))
    for least in range(2, 3000):
        assert fast_length(least) == next(n for n in smooth if n >= least)


def test_a_length_with_another_factor_is_refused_with_one_that_will_do():
    with pytest.raises(ValueError, match=r"100 points has a factor of 25: take fast_length\(100\)"):
        make_convolution(np.ones(100))


def test_rows_longer_than_the_filter_are_refused():
    with pytest.raises(ValueError, match=r"rows are \(4, 20\)"):
        convolve_rows(np.ones((4, 20), np.float32), np.ones((4, 20), np.float32), make_convolution(np.ones(18)))
