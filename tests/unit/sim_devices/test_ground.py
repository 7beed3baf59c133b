"""The granular ground: a heap in which no two granules overlap."""

import numpy as np

from sim_devices.ground import make_ground, top_mm


def make(seed=0):
    return make_ground(rng=np.random.default_rng(seed), within_mm=20.0, floor_mm=-5.0, unit_mm=25.0)


def test_granules_touch_but_do_not_overlap():
    ground = make()
    apart = np.linalg.norm(ground.centres[:, None] - ground.centres, axis=-1)
    gaps = apart - ground.radii[:, None] - ground.radii
    np.fill_diagonal(gaps, np.inf)
    assert gaps.min() > 0
    resting = (gaps.min(axis=1) < 1e-3) | (ground.centres[:, 2] - ground.radii < -5 + 1e-9)
    assert np.all(resting)


def test_granules_lie_on_the_floor_and_within_the_jar():
    ground = make(3)
    assert np.all(np.hypot(*ground.centres.T[:2]) + ground.radii <= 20)
    assert np.all(ground.centres[:, 2] - ground.radii >= -5)
    assert 50 < len(ground) < 500


def test_top_is_that_of_the_highest_granule_in_the_tube():
    ground = make()
    x, y, z = ground.centres[7]
    narrow = top_mm(ground, np.array([x, x]), np.array([y, y]), np.array([0.1, 50.0]))
    assert narrow[0] >= z + ground.radii[7]
    assert narrow[1] == np.max(ground.centres[:, 2] + ground.radii)
    assert top_mm(ground, np.array([100.0]), np.array([0.0]), np.array([1.0]))[0] == np.min(
        ground.centres[:, 2] - ground.radii
    )
