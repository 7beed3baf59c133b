"""How splits become pairs."""

from __future__ import annotations

import numpy as np
import pytest

from bluesky_jit.learn.noise2inverse import make_pairs


def test_two_splits_are_the_two_views():
    splits = np.random.default_rng(0).normal(size=(5, 2, 5, 3, 8, 8)).astype(np.float32)
    pairs = make_pairs(splits)
    assert pairs.u.shape == (5, 5, 3, 8, 8)
    assert np.array_equal(pairs.u, splits[:, 0])
    assert np.array_equal(pairs.v, splits[:, 1])


def test_of_more_splits_one_is_the_input_and_the_mean_of_the_others_the_target():
    splits = np.random.default_rng(0).normal(size=(400, 4, 1, 1, 4, 4)).astype(np.float32)
    pairs = make_pairs(splits, rng=np.random.default_rng(1))
    chosen = np.argmin(abs(splits - pairs.u[:, None]).max(axis=(2, 3, 4, 5)), axis=1)
    for number in range(400):
        others = np.delete(splits[number], chosen[number], axis=0)
        np.testing.assert_allclose(pairs.v[number], others.mean(axis=0), rtol=1e-4, atol=1e-5)
    assert np.bincount(chosen, minlength=4).min() > 60
    assert pairs.v.dtype == np.float32


def test_pairs_need_two_splits_and_a_random_choice_of_more():
    with pytest.raises(ValueError, match="there is 1 split"):
        make_pairs(np.zeros((1, 1, 1, 1, 4, 4), dtype=np.float32))
    with pytest.raises(ValueError, match="give rng"):
        make_pairs(np.zeros((1, 3, 1, 1, 4, 4), dtype=np.float32))
