"""Two classes by a threshold."""

from __future__ import annotations

import numpy as np
import pytest

from bluesky_jit.learn.segmentation import class_means, threshold_labels


def test_two_materials_are_told_apart():
    truth = np.zeros((1, 40, 40), dtype=bool)
    truth[0, 10:20, 5:30] = True
    image = np.where(truth, 0.06, 0.02) + 0.002 * np.random.default_rng(0).normal(size=truth.shape)
    labels = threshold_labels(image.astype(np.float32))
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, truth)


def test_a_flat_image_has_one_class():
    assert not threshold_labels(np.full((8, 8), 0.3, dtype=np.float32)).any()


def test_values_that_are_not_finite_belong_to_no_material():
    image = np.zeros((8, 8), dtype=np.float32)
    image[4:] = 1.0
    image[0, :3] = [np.nan, np.inf, -np.inf]
    labels = threshold_labels(image)
    assert labels.sum() == 32
    assert not labels[0].any()


def test_an_image_without_any_value_has_one_class():
    assert not threshold_labels(np.full((4, 4), np.nan, dtype=np.float32)).any()


def test_the_means_of_the_two_materials_are_found():
    image = np.repeat([0.02, 0.06], 50).reshape(10, 10) + 0.001 * np.random.default_rng(0).normal(size=(10, 10))
    assert class_means(image) == pytest.approx((0.02, 0.06), abs=1e-3)
    assert class_means(np.full((4, 4), 0.1)) is None
