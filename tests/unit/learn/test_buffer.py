"""The capacity queue."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from bluesky_jit.learn.buffer import WAITING, PairBuffer, dihedral_permutations
from bluesky_jit.messages import Pairs


def numbered(first: int, count: int, *, size: int = 4, channels: tuple[int, int] = (1, 1)) -> Pairs:
    """Make pairs whose u is their number and whose v is minus that."""
    u = np.arange(first, first + count, dtype=np.float32)[:, None, None, None, None]
    u = np.broadcast_to(u, (count, *channels, size, size)).copy()
    return Pairs(u=u, v=-u)


def numbers(pairs: Pairs) -> np.ndarray:
    return np.abs(pairs.u[:, 0, 0, 0, 0]).astype(int)


def test_the_newest_pairs_are_kept_and_older_ones_leave():
    buffer = PairBuffer(10, seed=0)
    for first in range(1, 26, 5):
        buffer.push(numbered(first, 5))
    assert len(buffer) == 10
    assert set(numbers(buffer.sample(500))) == set(range(16, 26))


def test_more_pairs_than_fit_at_once_leave_the_last_ones():
    buffer = PairBuffer(4, seed=0)
    buffer.push(numbered(1, 11))
    assert set(numbers(buffer.sample(200))) == {8, 9, 10, 11}
    assert buffer.counts().pushed == 11


def test_every_pair_is_drawn_equally_often():
    buffer = PairBuffer(20, seed=1)
    buffer.push(numbered(1, 20))
    drawn = np.bincount(numbers(buffer.sample(20_000)), minlength=21)[1:]
    chi_squared = np.sum((drawn - 1000) ** 2 / 1000)
    assert chi_squared < 43.8, "beyond the 99.9 % quantile of 19 degrees of freedom"


def test_u_and_v_change_places_half_the_time_and_together():
    buffer = PairBuffer(8, seed=2)
    buffer.push(numbered(1, 8))
    drawn = buffer.sample(4000)
    assert np.array_equal(drawn.u, -drawn.v)
    assert np.mean(drawn.u[:, 0, 0, 0, 0] < 0) == pytest.approx(0.5, abs=0.03)
    plain = PairBuffer(8, seed=2, swap=False)
    plain.push(numbered(1, 8))
    assert plain.sample(200).u.min() > 0


def test_permutations_of_a_square_are_its_eight_symmetries_and_form_a_group():
    ways = [tuple(way) for way in dihedral_permutations(5, 5)]
    assert len(set(ways)) == 8
    assert tuple(range(25)) in ways
    for first in ways:
        for second in ways:
            assert tuple(np.array(first)[list(second)]) in ways


def test_permutations_of_a_rectangle_keep_its_shape():
    ways = dihedral_permutations(2, 3)
    assert len(np.unique(ways, axis=0)) == 4
    assert ways[1].tolist() == [3, 4, 5, 0, 1, 2]


@pytest.mark.parametrize(("frames", "depth", "ways"), [(1, 1, 8), (3, 1, 8), (1, 3, 16), (3, 5, 16)])
def test_patches_are_drawn_in_all_their_ways_the_same_for_u_v_planes_and_frames(frames, depth, ways):
    buffer = PairBuffer(1, seed=3)
    u = np.random.default_rng(0).normal(size=(1, frames, depth, 4, 4)).astype(np.float32)
    buffer.push(Pairs(u=u, v=u + 1))
    drawn = buffer.sample(600)
    swapped = drawn.u[:, 0, 0, 0, 0] > drawn.v[:, 0, 0, 0, 0]
    lower = np.where(swapped[:, None, None, None, None], drawn.v, drawn.u)
    # Turned and flipped in the plane and turned over, but never with the last frame first.
    wanted = {
        image.tobytes()
        for slab in (u[0], u[0, :, ::-1])
        for turn in range(4)
        for image in _both_ways(np.rot90(slab, turn, axes=(2, 3)))
    }
    drawn_ways = [image.tobytes() for image in lower]
    assert set(drawn_ways) == wanted
    assert len(wanted) == ways
    assert min(drawn_ways.count(way) for way in wanted) > 600 / ways / 2


def _both_ways(slab: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(slab), np.ascontiguousarray(slab[..., ::-1])


def test_without_augmentation_patches_come_as_they_went():
    buffer = PairBuffer(1, seed=3, augment=False, swap=False)
    u = np.random.default_rng(0).normal(size=(1, 1, 1, 4, 6)).astype(np.float32)
    buffer.push(Pairs(u=u, v=-u))
    assert np.array_equal(buffer.sample(3).u, np.repeat(u, 3, axis=0))


def test_the_same_seed_draws_the_same():
    first, second, other = (PairBuffer(50, seed=seed) for seed in (7, 7, 8))
    for buffer in (first, second, other):
        buffer.push(numbered(1, 50))
    drawn = [buffer.sample(64).u for buffer in (first, second, other)]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_what_is_drawn_stays_when_the_buffer_moves_on():
    buffer = PairBuffer(4, seed=0)
    buffer.push(numbered(1, 4))
    drawn = buffer.sample(8)
    before = drawn.u.copy()
    buffer.push(numbered(100, 4))
    assert np.array_equal(drawn.u, before)


def test_fresh_pairs_are_told_once_newest_and_unchanged():
    buffer = PairBuffer(8, seed=0)
    assert buffer.fresh() is None
    buffer.push(numbered(1, 6))
    buffer.push(numbered(7, 6))
    fresh = buffer.fresh(limit=5)
    assert fresh is not None
    assert fresh.u[:, 0, 0, 0, 0].tolist() == [8, 9, 10, 11, 12]
    assert buffer.fresh() is None


def test_flush_forgets_all_pairs():
    buffer = PairBuffer(8, seed=0)
    buffer.push(numbered(1, 6))
    buffer.flush()
    assert (len(buffer), buffer.fresh(), buffer.counts().flushed) == (0, None, 6)
    with pytest.raises(ValueError, match="the buffer is empty"):
        buffer.sample(1)
    buffer.push(numbered(50, 2))
    assert set(numbers(buffer.sample(50))) == {50, 51}


def test_counts_tell_picks_and_age():
    now = [100.0]
    buffer = PairBuffer(4, seed=0, clock=lambda: now[0])
    buffer.push(numbered(1, 2))
    now[0] = 110.0
    buffer.push(numbered(3, 2))
    buffer.sample(12)
    now[0] = 111.0
    counts = buffer.counts()
    assert (counts.buffered, counts.pushed, counts.sampled) == (4, 4, 12)
    assert counts.picks_per_pair == 3.0
    assert counts.age_s == pytest.approx((11 + 1) / 2)


def test_a_new_shape_of_patch_starts_an_empty_buffer():
    buffer = PairBuffer(4, seed=0)
    buffer.push(numbered(1, 4))
    buffer.push(numbered(9, 1, size=6, channels=(1, 3)))
    assert len(buffer) == 1
    assert buffer.sample(2).u.shape == (2, 1, 3, 6, 6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pairs_that_are_not_finite_are_refused_and_leave_the_buffer_alone(bad):
    buffer = PairBuffer(4, seed=0)
    buffer.push(numbered(1, 2))
    spoilt = numbered(5, 2)
    spoilt.v[1, 0, 0, 2, 3] = bad
    with pytest.raises(ValueError, match="1 of 32 values of v are not finite"):
        buffer.push(spoilt)
    assert set(numbers(buffer.sample(50))) == {1, 2}


def test_pairs_of_unlike_shape_and_a_buffer_without_room_are_refused():
    good = numbered(1, 2)
    with pytest.raises(ValueError, match="give both one shape"):
        PairBuffer(4, seed=0).push(Pairs(u=good.u, v=good.v[:1]))
    with pytest.raises(ValueError, match=r"learn\.buffer is -1"):
        PairBuffer(-1, seed=0)


@pytest.mark.parametrize("capacity", [32, 320, 3])
def test_one_lonely_pair_is_drawn_as_often_as_asked_for(capacity):
    buffer = PairBuffer(capacity, seed=0)
    buffer.push(numbered(7, 1))
    assert set(numbers(buffer.sample(32))) == {7}
    assert buffer.counts().picks_per_pair == 32


def test_without_a_buffer_pairs_are_drawn_once_in_the_order_they_came():
    buffer = PairBuffer(0, seed=0)
    buffer.push(numbered(1, 5))
    buffer.push(numbered(6, 4))
    assert numbers(buffer.sample(4)).tolist() == [1, 2, 3, 4]
    assert len(buffer) == 5
    assert numbers(buffer.sample(32)).tolist() == [5, 6, 7, 8, 9]
    with pytest.raises(ValueError, match="the buffer is empty"):
        buffer.sample(1)
    counts = buffer.counts()
    assert (counts.buffered, counts.pushed, counts.sampled, counts.missed, counts.picks_per_pair) == (0, 9, 9, 0, 1.0)


def test_without_a_buffer_pairs_that_nobody_draws_give_way_to_newer_ones_and_are_counted():
    buffer = PairBuffer(0, seed=0)
    for first in range(1, 1 + 3 * WAITING, 10):
        buffer.push(numbered(first, 10))
    pushed = buffer.counts().pushed
    drawn = numbers(buffer.sample(2 * WAITING))
    assert drawn.tolist() == list(range(pushed - WAITING + 1, pushed + 1))
    assert buffer.counts().missed == pushed - WAITING


def test_without_a_buffer_pairs_are_fresh_until_they_are_drawn():
    buffer = PairBuffer(0, seed=0)
    buffer.push(numbered(1, 4))
    buffer.sample(2)
    fresh = buffer.fresh()
    assert fresh is not None
    assert numbers(fresh).tolist() == [3, 4]
    assert numbers(buffer.sample(9)).tolist() == [3, 4]
    assert buffer.fresh() is None


def test_new_pairs_are_wanted_while_there_is_room_and_then_as_often_as_old_ones_were_used():
    buffer = PairBuffer(8, seed=0)
    buffer.push(numbered(1, 7))
    assert buffer.wants_pairs(4)
    buffer.push(numbered(8, 3))
    assert not buffer.wants_pairs(4)
    buffer.sample(7)
    assert not buffer.wants_pairs(4)
    buffer.sample(1)
    assert buffer.wants_pairs(4)
    none = PairBuffer(0, seed=0)
    assert none.wants_pairs(4)
    none.push(numbered(1, 2))
    assert not none.wants_pairs(4)
    none.sample(2)
    assert none.wants_pairs(4)


@pytest.mark.parametrize("capacity", [0, 64])
def test_one_thread_may_push_while_another_samples(capacity):
    """Pairs whose halves do not belong together, or that are half an old and half a new one, would be seen at once."""
    buffer = PairBuffer(capacity, seed=0)
    drawn_all = threading.Event()
    there_is_one = threading.Condition()

    def push() -> None:
        first = 1
        while not drawn_all.is_set():
            with there_is_one:
                buffer.push(numbered(first, 32, size=20))
                there_is_one.notify()
            first += 32

    pusher = threading.Thread(target=push)
    pusher.start()
    seen: list[int] = []
    try:
        for _ in range(60):
            with there_is_one:
                assert there_is_one.wait_for(lambda: len(buffer) > 0, timeout=30)
            # Outside of the condition, so that pushes go on meanwhile.
            drawn = buffer.sample(32)
            flat = drawn.u.reshape(len(drawn), -1)
            assert np.array_equal(flat, np.repeat(flat[:, :1], flat.shape[1], axis=1))
            assert np.array_equal(drawn.u, -drawn.v)
            seen += numbers(drawn).tolist()
    finally:
        drawn_all.set()
        pusher.join()
    if not capacity:
        assert seen == sorted(set(seen)), "each pair once, in the order they came"
