"""Held-out windows: what is trained on, what is kept back, and for how long."""

from __future__ import annotations

import pytest

from bluesky_jit.session.learning.held_out import HeldOutWindows

REACH = 90


def train(windows: HeldOutWindows, newest: int, *, worth_judging: bool = True) -> int:
    """Make pairs when `newest` has come; return where their windows end."""
    until = windows.until(newest)
    windows.trained_on(until, worth_judging=worth_judging)
    return until


def test_after_a_cut_nothing_new_is_trained_on_until_a_window_of_other_projections_has_come() -> None:
    windows = HeldOutWindows(reach=REACH, every=4)
    assert {train(windows, newest) for newest in range(89, 179)} == {89}
    assert [newest for newest in range(89, 182) if windows.is_unseen(newest)] == [179, 180, 181]


def test_there_is_no_cut_before_the_network_is_worth_judging() -> None:
    windows = HeldOutWindows(reach=REACH, every=4)
    assert [train(windows, newest, worth_judging=False) for newest in (89, 150, 300)] == [89, 150, 300]
    assert [train(windows, newest) for newest in (301, 302)] == [301, 301]


def test_a_cut_begins_where_pairs_could_be_made() -> None:
    windows = HeldOutWindows(reach=REACH, every=4)
    # Nothing could be made of these windows.
    assert [windows.until(newest) for newest in (89, 90, 91)] == [89, 90, 91]
    assert [train(windows, newest) for newest in (92, 93)] == [92, 92]


def test_a_judged_window_is_trained_on_and_another_is_kept_back_some_windows_later() -> None:
    windows = HeldOutWindows(reach=REACH, every=4)
    train(windows, 89)
    windows.judged(179)
    assert not windows.is_cut
    assert [train(windows, newest) for newest in (179, 300, 448)] == [179, 300, 448]
    assert not windows.is_unseen(448)
    assert [train(windows, newest) for newest in (449, 500, 538)] == [449, 449, 449]
    assert windows.is_unseen(539)


def test_a_network_that_has_failed_is_judged_again_after_one_window_of_training() -> None:
    windows = HeldOutWindows(reach=REACH, every=4)
    train(windows, 89)
    windows.judged(179, passed=False)
    assert [train(windows, newest) for newest in (179, 268, 269, 270)] == [179, 268, 269, 269]


@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_no_window_that_is_judged_holds_a_projection_trained_on(every: int) -> None:
    windows = HeldOutWindows(reach=REACH, every=every)
    trained: set[int] = set()
    judged = 0
    for newest in range(89, 3000):
        if windows.is_unseen(newest):
            window = range(newest - REACH + 1, newest + 1)
            assert trained.isdisjoint(window)
            windows.judged(newest)
            judged += 1
        until = train(windows, newest)
        trained.update(range(until - REACH + 1, until + 1))
    assert judged == pytest.approx((3000 - 89) / REACH / every, abs=1)


def test_while_nothing_is_trained_on_every_window_is_judged_once() -> None:
    windows = HeldOutWindows(reach=REACH, every=4)
    train(windows, 89)
    judged = []
    for newest in range(90, 500):
        if windows.is_unseen(newest):
            judged.append(newest)
            windows.judged(newest)
    assert judged == [179, 269, 359, 449]


def test_after_a_jump_there_is_no_cut_before_a_window_has_come_since() -> None:
    windows = HeldOutWindows(reach=REACH, every=4)
    train(windows, 89)
    windows.lift(100)
    assert [train(windows, newest) for newest in (100, 120, 189)] == [100, 120, 189]
    assert [train(windows, newest, worth_judging=False) for newest in (190, 200)] == [190, 200]
    assert [train(windows, newest) for newest in (230, 240)] == [230, 230]


def test_a_window_that_holds_anything_of_before_a_jump_is_not_judged() -> None:
    windows = HeldOutWindows(reach=REACH, every=4)
    train(windows, 89)
    assert windows.is_unseen(179)
    windows.lift(179)
    # Nothing is trained on meanwhile.
    assert [newest for newest in range(179, 271) if windows.is_unseen(newest)] == [269, 270]


def test_without_cuts_the_newest_projections_are_always_trained_on() -> None:
    windows = HeldOutWindows(reach=REACH, every=0)
    assert [train(windows, newest) for newest in range(89, 1000)] == list(range(89, 1000))
    assert not windows.is_unseen(5000)


def test_what_was_trained_on_is_not_forgotten_when_frames_are_numbered_back() -> None:
    windows = HeldOutWindows(reach=REACH, every=0)
    train(windows, 200)
    train(windows, 150)
    assert windows.trained_to == 200
