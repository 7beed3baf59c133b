"""The ledger: every frame is numbered once, and what is missing or doubled is named."""

import numpy as np
import pytest

from bluesky_jit.intake.ledger import Ledger
from bluesky_jit.messages import FrameKind


def test_numbers_begin_at_the_first_frame_of_the_run() -> None:
    ledger = Ledger()
    assert ledger.enter("projection", np.array([70, 71, 72]), 3).acquisition.tolist() == [0, 1, 2]
    assert ledger.received == 3
    assert ledger.lost == 0


def test_a_gap_is_a_lost_frame_until_it_comes() -> None:
    ledger = Ledger()
    arrivals = ledger.enter("projection", np.array([10, 11, 14]), 3)
    assert arrivals.missing == (12, 13)
    assert arrivals.acquisition.tolist() == [0, 1, 4]
    assert ledger.lost == 2
    late = ledger.enter("projection", np.array([12]), 1)
    assert late.acquisition.tolist() == [2]
    assert late.keep.tolist() == [True]
    assert ledger.lost == 1


def test_a_gap_between_blocks_is_noticed() -> None:
    ledger = Ledger()
    ledger.enter("projection", np.array([0, 1]), 2)
    assert ledger.enter("projection", np.array([3]), 1).missing == (2,)


def test_a_repeat_is_left_out() -> None:
    ledger = Ledger()
    arrivals = ledger.enter("projection", np.array([5, 6, 6, 7]), 4)
    assert arrivals.keep.tolist() == [True, True, False, True]
    assert arrivals.duplicates == (6,)
    assert ledger.received == 3


def test_frames_in_the_wrong_order_are_not_lost() -> None:
    ledger = Ledger()
    arrivals = ledger.enter("projection", np.array([0, 2, 1, 3]), 4)
    assert arrivals.missing == ()
    assert arrivals.acquisition.tolist() == [0, 2, 1, 3]
    assert ledger.lost == 0


def test_kinds_are_counted_apart() -> None:
    ledger = Ledger()
    ledger.enter("dark", np.array([1, 2]), 2)
    ledger.enter("flat", np.array([3]), 1)
    assert (ledger.count("dark"), ledger.count("flat"), ledger.count("projection")) == (2, 1, 0)
    assert ledger.enter("projection", np.array([4]), 1).acquisition.tolist() == [0]


def test_frames_without_ids_are_numbered_as_they_come() -> None:
    ledger = Ledger()
    ledger.enter("projection", None, 2)
    assert ledger.enter("projection", None, 2).acquisition.tolist() == [2, 3]


def test_a_frame_from_before_the_first_one_is_late_and_not_a_repeat() -> None:
    ledger = Ledger()
    arrivals = ledger.enter("projection", np.array([2, 1, 3]), 3, np.array([0.2, 0.1, 0.3]))
    assert arrivals.acquisition.tolist() == [0, -1, 1]
    assert arrivals.keep.all()
    assert (ledger.received, ledger.lost) == (3, 0)


def test_a_counter_that_starts_anew_is_followed() -> None:
    """A driver may count from one again for each acquisition: newer frames with old ids are no repeats."""
    ledger = Ledger()
    ledger.enter("flat", np.array([1, 2, 3]), 3, np.array([0.1, 0.2, 0.3]))
    again = ledger.enter("flat", np.array([1, 2]), 2, np.array([5.1, 5.2]))
    assert again.restarted
    assert again.keep.all()
    assert again.acquisition.tolist() == [3, 4]
    assert (ledger.received, ledger.lost) == (5, 0)


def test_ids_that_never_count_are_numbered_as_they_come() -> None:
    ledger = Ledger()
    numbers = [ledger.enter("projection", np.array([1]), 1, np.array([float(n)])).acquisition[0] for n in range(4)]
    assert numbers == [0, 1, 2, 3]


def test_the_same_frame_again_is_a_repeat() -> None:
    ledger = Ledger()
    ledger.enter("projection", np.array([7, 8]), 2, np.array([0.1, 0.2]))
    again = ledger.enter("projection", np.array([8]), 1, np.array([0.2]))
    assert again.duplicates == (8,)
    assert not again.keep.any()


def test_a_repeat_that_both_the_tap_and_documents_bring_counts_once() -> None:
    ledger = Ledger()
    ids, times = np.array([7, 7, 8]), np.array([0.1, 0.1, 0.2])
    assert ledger.enter("projection", ids, 3, times, tapped=True).duplicates == (7,)
    assert ledger.enter("projection", ids, 3, times).duplicates == ()
    assert (ledger.received, ledger.duplicates, ledger.backfilled) == (2, 1, 0)


def test_what_the_tap_lost_is_lost_only_when_documents_have_passed_it() -> None:
    ledger = Ledger()
    ledger.enter("projection", np.array([1, 2, 5]), 3, np.array([0.1, 0.2, 0.5]), tapped=True)
    assert (ledger.missing, ledger.lost) == (2, 0)
    passed = ledger.enter("projection", np.array([1, 2, 3, 5]), 4, np.array([0.1, 0.2, 0.3, 0.5]))
    assert passed.missing == (4,)
    assert (ledger.missing, ledger.lost, ledger.backfilled) == (1, 1, 1)


def test_frames_that_came_by_the_tap_only_stay_and_its_gaps_are_lost_in_the_end() -> None:
    ledger = Ledger()
    ledger.enter("projection", np.array([1, 2, 5]), 3, np.array([0.1, 0.2, 0.5]), tapped=True)
    assert ledger.finish() == (3, 4)
    assert (ledger.received, ledger.lost) == (3, 2)


def test_announced_frames_that_cannot_be_read_are_no_loss_where_the_tap_had_them() -> None:
    ledger = Ledger()
    ledger.enter("projection", np.array([1, 2, 3]), 3, np.array([0.1, 0.2, 0.3]), tapped=True)
    ledger.give_up("projection", 4)
    ledger.finish()
    assert (ledger.received, ledger.lost) == (3, 1)


def test_frames_that_cannot_be_read_and_leave_a_gap_count_once() -> None:
    ledger = Ledger()
    ledger.enter("projection", np.array([1, 2]), 2)
    ledger.give_up("projection", 3)
    assert ledger.lost == 3
    ledger.enter("projection", np.array([6]), 1)
    assert ledger.lost == 3


def test_times_of_another_clock_make_no_frame_a_new_one() -> None:
    ledger = Ledger()
    ledger.enter("projection", np.array([1, 2, 3]), 3, np.array([10.1, 10.2, 10.3]), tapped=True)
    again = ledger.enter("projection", np.array([1, 2, 3]), 3, np.array([10.13, 10.24, 10.33]))
    assert not again.keep.any()
    assert (ledger.received, ledger.duplicates, ledger.backfilled) == (3, 0, 0)


def test_a_wild_id_costs_neither_time_nor_memory() -> None:
    ledger = Ledger()
    ledger.enter("projection", np.array([0, 1]), 2, np.array([0.1, 0.2]))
    wild = ledger.enter("projection", np.array([2**31]), 1, np.array([0.3]))
    assert wild.restarted
    assert wild.missing == ()
    back = ledger.enter("projection", np.array([3]), 1, np.array([0.4]))
    assert back.keep.all()
    assert ledger.lost == 0


def test_frames_that_a_run_was_to_bring_and_did_not_are_lost() -> None:
    ledger = Ledger()
    ledger.enter("projection", np.array([0, 1, 4]), 3)
    assert ledger.expect("projection", 7) == 2
    assert ledger.lost == 4
    assert ledger.expect("projection", 7) == 0


def test_a_detector_counts_on_over_other_kinds_of_frames() -> None:
    """Flats after the projections, and darks and flats in mid-run: nothing is lost between them but what is."""
    kinds: tuple[FrameKind, ...] = ("flat", "projection", "dark", "projection", "flat")
    series = zip(kinds, (0, 4, 10, 12, 20), (4, 10, 12, 20, 24), strict=True)
    ids = {(kind, first): np.array([n for n in range(first, stop) if n != 15]) for kind, first, stop in series}
    for order in (list(ids), list(ids)[::-1]):
        ledger = Ledger()
        for kind, first in order:
            came = ids[kind, first]
            ledger.enter(kind, came, len(came), 1000.0 + came)
        assert (ledger.received, ledger.lost, ledger.missing) == (23, 1, 1)


def test_kinds_that_each_have_a_count_of_their_own_hide_no_gap() -> None:
    ledger = Ledger()
    ledger.enter("flat", np.arange(4), 4, np.arange(4) + 1000.0)
    assert ledger.enter("projection", np.array([0, 1, 3]), 3, np.array([2000.0, 2001.0, 2003.0])).missing == (2,)
    ledger.enter("flat", np.arange(4, 8), 4, np.arange(4) + 3000.0)
    assert ledger.lost == 1


def test_a_damaged_frame_is_lost_until_a_good_copy_comes() -> None:
    ledger = Ledger()
    ledger.enter("projection", np.array([1, 2]), 2, usable=np.array([True, False]))
    assert (ledger.lost, ledger.missing) == (1, 1)
    ledger.enter("projection", np.array([2]), 1, tapped=True)
    assert (ledger.lost, ledger.missing) == (0, 0)


def test_frames_that_could_not_be_taken_in_are_lost_and_not_damaged() -> None:
    ledger = Ledger()
    arrivals = ledger.enter("projection", np.array([1, 2]), 2, here=False)
    assert (ledger.lost, ledger.missing, ledger.corrupt, arrivals.refused) == (2, 2, 0, ())


def test_rows_whose_place_is_not_known_count_once_where_they_left_a_gap() -> None:
    ledger = Ledger()
    ledger.enter("projection", np.array([0, 1, 5]), 3)
    ledger.unlocated("projection", 4)
    ledger.finish()
    assert (ledger.received, ledger.lost, ledger.missing) == (3, 4, 4)


def test_the_figures_can_be_read_while_the_first_frames_of_a_kind_come() -> None:
    ledger = Ledger()
    counts = iter(ledger._counts.values())
    next(counts)
    ledger.enter("flat", np.array([1]), 1)
    ledger.expect("dark", 1)
    assert len(list(counts)) == 2


@pytest.mark.parametrize(
    ("first", "event_delay_s"),
    [(5000, 0.0), (5000, 0.005), (5000, 0.05), (5003, 0.0)],
    ids=["overtaken", "stamped a little later", "stamped frames later", "connected late"],
)
def test_frames_that_came_without_numbers_before_the_tap_are_the_same_frames(first: int, event_delay_s: float) -> None:
    times_s = 1e9 + 0.02 * np.arange(10)
    ledger = Ledger()
    ledger.enter("projection", None, 3, times_s[:3] + event_delay_s)
    place = first - 5000
    arrivals = ledger.enter("projection", np.arange(first, 5010), 10 - place, times_s[place:], tapped=True)
    assert arrivals.acquisition.tolist() == list(range(place, 10))
    assert arrivals.keep.tolist() == [False] * (3 - place) + [True] * 7
    assert (ledger.received, ledger.missing, ledger.tapped, ledger.duplicates) == (10, 0, 10 - place, 0)
    assert not arrivals.restarted
