"""The virtual detector sees, square to the central ray, what the real one saw."""

from dataclasses import replace

import numpy as np
import pytest

from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry
from bluesky_jit.tomo.virtual import virtual_detector

CONE = ConeGeometry(n_u=90, n_v=70, pixel_mm=0.4, source_axis_mm=60, source_detector_mm=150, detector_u_mm=1.2)
PARALLEL = ParallelGeometry(n_u=90, n_v=70, pixel_mm=0.4, detector_v_mm=-0.8)
LEANING = {"detector_roll_rad": 0.06, "detector_pitch_rad": -0.1, "detector_yaw_rad": 0.15}


@pytest.mark.parametrize("geometry", [CONE, PARALLEL, replace(CONE, axis_tilt_rad=0.3)])
def test_a_detector_that_is_only_shifted_needs_no_resampling(geometry):
    assert virtual_detector(geometry) is None


@pytest.mark.parametrize("geometry", [CONE, PARALLEL], ids=["cone", "parallel"])
def test_a_smooth_picture_is_the_same_where_both_detectors_see_it(geometry):
    geometry = replace(geometry, **LEANING)
    rows, columns = np.mgrid[:70, :90].astype(float)

    def picture(u, v):
        return np.sin(u / 6) * np.cos(v / 5) + 0.01 * u

    # Paint on the real detector what a picture on the virtual one looks like from there.
    u, v, w = np.linalg.inv(geometry.to_real) @ np.stack([columns.ravel(), rows.ravel(), np.ones(columns.size)])
    real = picture(u / w, v / w).reshape(columns.shape)
    virtual = virtual_detector(geometry)
    assert virtual is not None
    seen = virtual.seen(real)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen[12:-12, 12:-12], picture(columns, rows)[12:-12, 12:-12], atol=2e-3)


def test_the_last_pixel_goes_on_where_the_real_detector_ends():
    virtual = virtual_detector(replace(CONE, detector_roll_rad=0.2))
    assert virtual is not None
    np.testing.assert_allclose(virtual.seen(np.full((70, 90), 3.5, dtype=np.float32)), 3.5, rtol=1e-6)


def test_noise_keeps_more_of_its_strength_than_linear_interpolation_would_leave():
    virtual = virtual_detector(replace(CONE, detector_roll_rad=0.1))
    assert virtual is not None
    seen = virtual.seen(np.random.default_rng(2).normal(size=(70, 90)))
    # Two thirds, by linear interpolation at positions evenly spread over the pixel.
    assert seen[10:-10, 10:-10].std() == pytest.approx(0.82, abs=0.02)


def test_the_smallest_detector_is_resampled_too():
    virtual = virtual_detector(ParallelGeometry(n_u=1, n_v=1, pixel_mm=1, detector_yaw_rad=0.1))
    assert virtual is not None
    np.testing.assert_allclose(virtual.seen(np.ones((1, 1))), 1)
