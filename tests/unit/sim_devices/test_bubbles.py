"""Bubbles: they keep to their lanes, and live without jumps from small to small."""

import numpy as np
import pytest

from sim_devices.bubbles import make_lanes
from sim_devices.ground import make_ground
from sim_devices.phantom import STYLES


def make(name, seed=0):
    ground = make_ground(rng=np.random.default_rng(seed), within_mm=25.0, floor_mm=-20.0, unit_mm=30.0)
    return make_lanes(STYLES[name], seed=seed, unit_mm=30.0, within_mm=25.0, ground=ground, gap_mm=0.1, top_mm=15.0)


def at(lanes, time_s):
    bubbles = lanes.bubbles(time_s, lambda times_s: np.broadcast_to(lanes.bottoms_mm[:, None], times_s.shape))
    names = zip(bubbles.lanes.tolist(), bubbles.numbers.tolist(), strict=True)
    return dict(zip(names, np.column_stack([bubbles.centres_mm, bubbles.radii_mm]), strict=True))


@pytest.mark.parametrize("name", ["A", "B"])
def test_lanes_do_not_overlap_and_stay_within_the_jar(name):
    lanes = make(name)
    apart = np.hypot(lanes.x_mm[:, None] - lanes.x_mm, lanes.y_mm[:, None] - lanes.y_mm)
    gaps = apart - lanes.radii_mm[:, None] - lanes.radii_mm
    np.fill_diagonal(gaps, np.inf)
    assert gaps.min() >= 0.1 - 1e-9
    assert np.all(np.hypot(lanes.x_mm, lanes.y_mm) + lanes.radii_mm <= 25)


@pytest.mark.parametrize("name", ["A", "B"])
def test_bubbles_stay_in_their_lanes(name):
    lanes = make(name)
    for time_s in np.linspace(0, 500, 30):
        for (lane, _), (x, y, z, radius) in at(lanes, time_s).items():
            assert np.hypot(x - lanes.x_mm[lane], y - lanes.y_mm[lane]) + radius <= lanes.radii_mm[lane] + 1e-9
            assert lanes.bottoms_mm[lane] <= z - radius
            assert z + radius <= 15.0


@pytest.mark.parametrize(("name", "step_s"), [("A", 0.2), ("B", 1.0)])
def test_bubbles_come_grow_rise_and_go_without_jumps(name, step_s):
    lanes = make(name)
    before = at(lanes, 100.0)
    for time_s in 100.0 + step_s * np.arange(1, 60):
        now = at(lanes, time_s)
        for bubble in before.keys() | now.keys():
            x, y, z, radius = now.get(bubble, np.zeros(4))
            x_before, y_before, z_before, radius_before = before.get(bubble, np.zeros(4))
            assert abs(radius - radius_before) < 0.5
            if bubble in before and bubble in now:
                assert z > z_before
                assert np.hypot(x - x_before, y - y_before) < 0.5
        before = now


def test_figures_of_a_bubble_hang_on_seed_lane_and_number_alone():
    first, again, other = at(make("A"), 50.0), at(make("A"), 50.0), at(make("A", seed=1), 50.0)
    assert first.keys() == again.keys()
    assert all(np.array_equal(first[bubble], again[bubble]) for bubble in first)
    assert first.keys() != other.keys()
