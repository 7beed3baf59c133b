"""Whatever the order and spacing of the angles, each split's weights sum to the arc."""

import numpy as np
import pytest

from bluesky_jit.tomo.arcs import covered_arc
from bluesky_jit.tomo.weights import arc_weights, split_weights

TURN = 2 * np.pi
GOLDEN = np.pi * (3 - np.sqrt(5))


def even(n, arc=TURN):
    return np.arange(n) * arc / n


def interlaced(n, passes):
    return np.concatenate([even(n)[start::passes] for start in range(passes)])


ORDERS = {
    "sequential": even(60),
    "backwards": -even(60) + 0.3,
    "interlaced": interlaced(60, 4),
    "golden": GOLDEN * np.arange(60),
    "two turns": even(120, 2 * TURN),
    "three turns": even(90, 3 * TURN),
    "uneven": even(60) + np.random.default_rng(1).uniform(-0.04, 0.04, 60),
    "one lost": np.delete(even(60), 17),
    "five lost in a row": np.delete(even(180), np.s_[20:25]),
    "from minus a turn": even(60) - TURN,
}


@pytest.mark.parametrize("angles", ORDERS.values(), ids=ORDERS.keys())
@pytest.mark.parametrize("period", [TURN, np.pi], ids=["cone", "parallel"])
def test_a_closed_arc_is_shared_out_completely_in_every_split(angles, period):
    arc = covered_arc(angles, period)
    assert arc.closed
    splits = np.arange(len(angles)) % 3
    weights = split_weights(angles, splits, 3, arc)
    assert (weights > 0).all()
    np.testing.assert_allclose([weights[splits == k].sum() for k in range(3)], period)


def test_even_angles_share_evenly_with_the_seam_included():
    np.testing.assert_allclose(arc_weights(even(60), covered_arc(even(60), TURN)), TURN / 60)


@pytest.mark.parametrize("turns", [2, 3, 5])
def test_repeated_turns_divide_the_arc_evenly_even_when_the_stage_does_not_repeat_exactly(turns):
    jitter = np.random.default_rng(7).uniform(-1e-4, 1e-4, 30 * turns)
    angles = even(30 * turns, TURN * turns) + jitter
    weights = arc_weights(angles, covered_arc(angles, TURN))
    np.testing.assert_allclose(weights, TURN / (30 * turns), rtol=2e-3)


def test_half_a_turn_folds_onto_the_other_half_in_a_parallel_beam():
    weights = arc_weights(even(60), covered_arc(even(60), np.pi))
    np.testing.assert_allclose(weights, np.pi / 60)


def test_uneven_angles_take_half_the_gaps_to_their_neighbours():
    angles = np.array([0.0, 1.0, 3.0, 4.0, 5.5])
    expected = np.array([(TURN - 5.5 + 1) / 2, 1.5, 1.5, 1.25, (1.5 + TURN - 5.5) / 2])
    order = [3, 0, 4, 2, 1]
    np.testing.assert_allclose(arc_weights(angles[order], covered_arc(angles, TURN)), expected[order])


@pytest.mark.parametrize("start", [0.0, 2.0, 5.5, -40.0])
def test_a_partial_arc_is_weighted_by_what_it_covers(start):
    angles = start + np.arange(30) * 0.1
    arc = covered_arc(angles, TURN)
    assert not arc.closed
    assert arc.length_rad == pytest.approx(3.0)
    np.testing.assert_allclose(arc_weights(angles, arc), 0.1)
    splits = np.arange(30) % 2
    weights = split_weights(angles, splits, 2, arc)
    np.testing.assert_allclose([weights[splits == k].sum() for k in (0, 1)], 3.0)


def test_a_lost_frame_of_a_partial_arc_does_not_unbalance_the_halves():
    angles, acquisition = np.arange(30) * 0.1, np.arange(30)
    kept = np.delete(acquisition, 29)
    arc = covered_arc(angles[kept], TURN)
    weights = split_weights(angles[kept], kept % 2, 2, arc)
    assert weights[kept % 2 == 0].sum() == pytest.approx(weights[kept % 2 == 1].sum())
    assert weights[kept % 2 == 0].sum() == pytest.approx(2.9)


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_angles_cover_nothing(n):
    arc = covered_arc(np.ones(n), TURN)
    assert arc.length_rad == 0
    np.testing.assert_array_equal(arc_weights(np.ones(n), arc), np.zeros(n))
