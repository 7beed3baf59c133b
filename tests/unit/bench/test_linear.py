"""The line through timings: so much a call, and so much an update."""

import numpy as np
import pytest

from bluesky_jit.bench.linear import fit_line


def test_a_line_is_found_with_small_and_large_times_alike() -> None:
    updates = np.array([1e4, 1e6, 1e8])
    assert fit_line(updates, 0.05 + 1e-6 * updates) == pytest.approx((0.05, 1e-6))


def test_no_call_takes_less_than_no_time() -> None:
    updates = np.array([1.0, 2.0, 4.0])
    intercept, slope = fit_line(updates, 3 * updates - 0.5)
    assert intercept == 0.0
    assert 2.5 < slope < 3.0
