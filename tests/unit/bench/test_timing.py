"""Contestants take turns, and what one is compared with was measured beside it."""

import numpy as np
import pytest

from bluesky_jit.bench.timing import interleaved, median_ms, times_as_fast


def test_contestants_take_turns_in_both_orders_after_a_round_that_does_not_count() -> None:
    order: list[str] = []
    times = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3)
    assert order == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert {name: len(found) for name, found in times.items()} == {"a": 3, "b": 3}


def test_a_ratio_is_taken_within_each_round() -> None:
    # In the second round the machine is ten times as slow, for both.
    times = {"ours": np.array([1.0, 10.0, 1.0]), "other": np.array([3.0, 30.0, 3.0])}
    assert times_as_fast(times, "ours", "other") == pytest.approx(3.0)
    assert median_ms(times, "ours") == 1.0
    assert median_ms(times, "a peer that is not installed") is None
