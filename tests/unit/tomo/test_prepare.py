"""From raw counts to filtered values."""

import numpy as np
import pytest

from bluesky_jit.tomo.geometry import ConeGeometry
from bluesky_jit.tomo.prepare import FrameInfo, Preparation
from bluesky_jit.tomo.ramp import filtered, make_filter

CONE = ConeGeometry(n_u=50, n_v=40, pixel_mm=0.3, source_axis_mm=30, source_detector_mm=60)
INFO = FrameInfo(angle_rad=0.0, acquisition=0, time_s=0.0)


def test_counts_become_filtered_attenuation():
    preparation = Preparation(CONE)
    preparation.dark_flat.add_darks(np.full((1, 40, 50), 10, np.uint16))
    preparation.dark_flat.add_flats(np.full((1, 40, 50), 1010, np.uint16))
    counts = np.random.default_rng(3).integers(200, 1000, (40, 50)).astype(np.uint16)
    counts[7, 7] = 0
    result, clipped = preparation.filtered(counts, INFO)
    integrals = -np.log(np.maximum(counts - 10.0, 0.5) / 1000)
    np.testing.assert_allclose(result, filtered(integrals.astype(np.float32), make_filter(CONE)), atol=1e-4)
    assert clipped == pytest.approx(1 / 2000)
