"""The sharpest slice improves a doubtful axis, or leaves it alone."""

from dataclasses import replace

import numpy as np
import pytest
from axis_scans import CONE, HALF_TURN, PARALLEL, TURN, angles, scan, with_noise

from bluesky_jit.tomo.axis.estimate import estimate_axis
from bluesky_jit.tomo.axis.sharpness import negativity, shared_energy, sharpest
from bluesky_jit.tomo.kernels import choose

AXIS_PX = 3.3
SCANS = [
    pytest.param(PARALLEL, HALF_TURN, id="parallel-half-turn"),
    pytest.param(PARALLEL, TURN, id="parallel-turn"),
    pytest.param(CONE, TURN, id="cone-turn"),
]


@pytest.fixture(scope="module")
def kernel():
    return choose("numba")


def sharpest_px(row, views, geometry, start_px, kernel):
    """Return the sharpest axis and its deviation in pixels, or None."""
    found = sharpest(row, views, geometry, start_px * geometry.voxel_mm, kernel)
    return found and (found[0] / geometry.voxel_mm, found[1] / geometry.voxel_mm)


@pytest.mark.parametrize(("geometry", "arc_rad"), SCANS)
@pytest.mark.parametrize("start_px", [AXIS_PX, AXIS_PX - 1.6, AXIS_PX + 1.2])
def test_a_slice_is_sharpest_at_the_axis(geometry, arc_rad, start_px, kernel):
    views = angles(150, arc_rad)
    row = with_noise(scan(geometry, AXIS_PX, views), 1000)[1]
    column, error = sharpest_px(row, views, geometry, start_px, kernel)
    assert column == pytest.approx(AXIS_PX, abs=0.2)
    assert error < 0.3


@pytest.mark.parametrize(("geometry", "arc_rad"), SCANS)
def test_it_improves_a_doubtful_axis_and_leaves_a_sure_one_alone(geometry, arc_rad, kernel):
    views = angles(150, arc_rad)
    exact = scan(geometry, AXIS_PX, views)[:1]
    sure = estimate_axis(exact, views, geometry, kernel=kernel)
    assert not sure.sharpened
    without, refined = [], []
    for seed in range(16):
        rows = with_noise(exact, 100, seed)
        for estimates, judge in ((without, None), (refined, kernel)):
            estimates.append(estimate_axis(rows, views, geometry, kernel=judge))

    def rms(estimates):
        return np.sqrt(np.mean([(e.offset_mm / geometry.voxel_mm - AXIS_PX) ** 2 for e in estimates]))

    assert rms(refined) <= 1.05 * rms(without)
    for before, after in zip(without, refined, strict=True):
        assert after.sharpened or after.column == before.column


def test_in_a_slice_with_no_sharpest_place_it_says_nothing(kernel):
    views = angles(150, TURN)
    disc = np.broadcast_to(np.hanning(PARALLEL.n_u), (150, PARALLEL.n_u))
    assert sharpest(np.zeros((150, PARALLEL.n_u)), views, PARALLEL, 0.0, kernel) is None
    far = sharpest_px(disc, views, PARALLEL, 40.0, kernel)
    assert far is None


@pytest.mark.parametrize(("geometry", "arc_rad"), [(PARALLEL, 0.7 * HALF_TURN), (CONE, HALF_TURN)])
def test_a_part_of_the_arc_says_nothing(geometry, arc_rad, kernel):
    views = angles(100, arc_rad)
    assert sharpest(scan(geometry, AXIS_PX, views)[0], views, geometry, 0.0, kernel) is None


def test_an_axis_at_the_detectors_edge_says_nothing(kernel):
    views = angles(50, TURN)
    assert sharpest(np.ones((50, 256)), views, PARALLEL, 0.49 * PARALLEL.n_u * PARALLEL.pixel_mm, kernel) is None


def test_negativity_is_what_lies_below_zero():
    images = np.array([[1.0, -2.0, 0.0, -4.0], [1.0, 2.0, 3.0, 4.0]])
    assert negativity(images) == pytest.approx([1.5, 0.0])


def test_noise_of_one_part_has_no_share_in_the_energy():
    random = np.random.default_rng(1)
    truth = random.normal(size=20_000)
    parts = truth + random.normal(size=(4, 20_000)) * 3
    assert shared_energy(parts) == pytest.approx(-3.0, abs=0.3)


def test_a_row_of_a_thick_stack_is_as_good(kernel):
    views = angles(150, HALF_TURN)
    thick = replace(PARALLEL, n_v=9, detector_v_mm=2.0)
    rows = scan(PARALLEL, AXIS_PX, views)
    assert sharpest(rows[1], views, thick, 1.5, kernel) == sharpest(rows[1], views, PARALLEL, 1.5, kernel)
