"""The rolling window: what it keeps, in what order, and when a reader may trust what it read."""

import pickle
import re
from types import SimpleNamespace

import numpy as np
import pytest

from bluesky_jit.tomo import memory
from bluesky_jit.tomo.prepare import FrameInfo
from bluesky_jit.tomo.window import Window, quantise


def push(window, number, *, angle=None, filtered=True, value=None):
    value = number if value is None else value
    window.push(
        np.full((3, 4), value, dtype=np.uint16),
        np.full((3, 4), value, dtype=np.float32) if filtered else None,
        FrameInfo(angle_rad=0.1 * number if angle is None else angle, acquisition=number, time_s=number * 0.5),
        unique_id=number + 100,
    )


def values_of(view):
    """Return what the slots say, (n,)."""
    return view.projections.values[view.slots, 2, 2] * view.projections.scales[view.slots]


def test_it_keeps_the_newest_projections_in_order():
    window = Window(3, 4, 5)
    for n in range(23):
        push(window, n)
    view = window.view
    np.testing.assert_array_equal(view.acquisition, [18, 19, 20, 21, 22])
    np.testing.assert_array_equal(view.unique_ids, view.acquisition + 100)
    np.testing.assert_allclose(view.angles_rad, 0.1 * view.acquisition)
    np.testing.assert_allclose(view.frame_times_s, 0.5 * view.acquisition)
    np.testing.assert_allclose(values_of(view), view.acquisition, rtol=1e-6)
    assert view.pushed == window.pushed == 23
    assert view.filtered


def test_a_lost_frame_leaves_a_gap_instead_of_reaching_further_back():
    window = Window(3, 4, 5)
    for n in (0, 1, 2, 3, 4, 5, 6, 8):
        push(window, n)
    np.testing.assert_array_equal(window.view.acquisition, [4, 5, 6, 8])


def test_a_frame_filled_in_late_takes_its_place_and_a_repeated_one_counts_once():
    window = Window(3, 4, 6)
    for n in (0, 1, 3, 4):
        push(window, n)
    push(window, 2)
    push(window, 1, value=77)
    np.testing.assert_array_equal(window.view.acquisition, [0, 1, 2, 3, 4])
    np.testing.assert_allclose(values_of(window.view), [0, 77, 2, 3, 4], rtol=1e-6)


def test_angles_go_on_over_the_turn_even_when_the_encoder_starts_again():
    window = Window(3, 4, 50)
    for n in range(40):
        push(window, n, angle=np.mod(0.4 * n, 2 * np.pi))
    np.testing.assert_allclose(window.view.angles_rad, 0.4 * np.arange(40))


def test_frames_that_come_late_have_the_angle_of_their_own_turn():
    window = Window(3, 4, 50)
    late = (3, 20, 21, 22, 23, 24)
    for n in (*(n for n in range(40) if n not in late), *late, 40):
        push(window, n, angle=np.mod(0.4 * n, 2 * np.pi))
    np.testing.assert_allclose(window.view.angles_rad, 0.4 * np.arange(41))


def test_a_frame_that_comes_too_late_drives_no_other_one_out():
    window = Window(3, 4, 5)
    for n in range(10):
        push(window, n)
    push(window, 2)
    np.testing.assert_array_equal(window.view.acquisition, [5, 6, 7, 8, 9])


def test_a_view_never_changes_and_pickles():
    window = Window(3, 4, 5)
    for n in range(5):
        push(window, n)
    view = window.view
    before = (view.slots.copy(), view.acquisition.copy(), view.pushed)
    for n in range(5, 60):
        push(window, n)
    np.testing.assert_array_equal(view.slots, before[0])
    np.testing.assert_array_equal(view.acquisition, before[1])
    assert view.pushed == before[2]
    assert pickle.loads(pickle.dumps(view)).pushed == 5  # noqa: S301


def test_what_a_view_names_stays_intact_for_exactly_the_spare_pushes():
    window = Window(3, 4, 5, spare=3)
    for n in range(13):
        push(window, n)
    view = window.view
    for n in range(13, 16):
        push(window, n)
        assert window.intact(view)
        np.testing.assert_allclose(values_of(view), view.acquisition, rtol=1e-6)
    push(window, 16)
    assert not window.intact(view)
    assert values_of(view)[0] != pytest.approx(view.acquisition[0])
    assert window.intact(window.view)


def test_a_push_that_has_only_begun_already_ends_the_trust():
    window = Window(3, 4, 5, spare=0)
    for n in range(5):
        push(window, n)
    view = window.view
    with pytest.raises(ValueError):
        window.push(
            np.zeros((9, 9), dtype=np.uint16), None, FrameInfo(angle_rad=0, acquisition=5, time_s=0), unique_id=5
        )
    assert not window.intact(view)


def test_raw_counts_wait_for_flats_and_are_filtered_then():
    window = Window(3, 4, 4)
    for n in range(10):
        push(window, n, filtered=False)
    assert not window.view.filtered
    window.refilter(lambda counts, _: (counts.astype(np.float32) * 2, 0.25))
    view = window.view
    assert view.filtered
    np.testing.assert_allclose(values_of(view), [12, 14, 16, 18], rtol=1e-6)
    np.testing.assert_array_equal(view.clipped, np.float32(0.25))


def test_filtering_again_leaves_earlier_views_as_they_were():
    window = Window(3, 4, 4)
    for n in range(4):
        push(window, n)
    earlier = window.view
    window.refilter(lambda counts, _: (counts.astype(np.float32) * 2, 0.0))
    for n in range(4, 30):
        push(window, n)
    assert window.intact(earlier)
    np.testing.assert_allclose(values_of(earlier), [0, 1, 2, 3], rtol=1e-6)


def test_where_filtering_again_fails_half_way_nothing_has_changed():
    window = Window(3, 4, 4)
    for n in range(4):
        push(window, n, filtered=n > 1)

    def fails_at_the_third(counts, info):
        if info.acquisition == 2:
            raise MemoryError("no room")
        return counts.astype(np.float32) * 2, 0.5

    before = window.view
    with pytest.raises(MemoryError):
        window.refilter(fails_at_the_third)
    push(window, 4)
    view = window.view
    assert not view.filtered
    assert view.projections is before.projections
    push(window, 5)
    assert window.view.filtered
    np.testing.assert_allclose(values_of(window.view), [2, 3, 4, 5], rtol=1e-6)
    np.testing.assert_array_equal(window.view.clipped, 0)


def test_what_was_filtered_can_be_taken_back_until_it_is_filtered_again():
    window = Window(3, 4, 4)
    for n in range(4):
        push(window, n)
    window.unfilter()
    assert not window.view.filtered
    push(window, 4)
    assert not window.view.filtered
    window.refilter(lambda counts, _: (counts.astype(np.float32) * 2, 0.0))
    assert window.view.filtered
    np.testing.assert_allclose(values_of(window.view), [2, 4, 6, 8], rtol=1e-6)


def test_slots_keep_a_border_of_zeros_and_lose_less_than_half_a_step():
    filtered = np.random.default_rng(6).normal(size=(30, 40)).astype(np.float32)
    slot = np.zeros((32, 42), dtype=np.int16)
    scale = quantise(filtered, slot)
    assert not slot[[0, -1]].any()
    assert not slot[:, [0, -1]].any()
    assert np.abs(slot).max() == 32767
    assert np.abs(slot[1:-1, 1:-1] * scale - filtered).max() <= 0.501 * scale
    assert quantise(np.zeros((30, 40), dtype=np.float32), slot) == 1
    assert not slot.any()


def test_an_empty_window_has_an_empty_view():
    window = Window(3, 4, 4)
    assert len(window.view) == 0
    assert window.intact(window.view)
    with pytest.raises(ValueError, match="n_projections is 0"):
        Window(3, 4, 0)


def test_whole_windows_share_no_projection():
    window = Window(3, 4, 5, mode="whole-turns")
    seen = []
    for n in range(23):
        push(window, n)
        seen.append(tuple(window.view.acquisition))
        assert window.view.whole == (n >= 4)
    assert seen[3] == (0, 1, 2, 3)
    assert set(seen[4:9]) == {(0, 1, 2, 3, 4)}
    assert set(seen[9:14]) == {(5, 6, 7, 8, 9)}
    assert set(seen[19:]) == {(15, 16, 17, 18, 19)}
    np.testing.assert_allclose(values_of(window.view), [15, 16, 17, 18, 19], rtol=1e-6)


def test_the_first_projection_after_a_whole_window_ends_it_even_when_its_last_was_lost():
    window = Window(3, 4, 5, mode="whole-turns")
    for n in (*range(5), 5, 6, 7, 8):
        push(window, n)
    np.testing.assert_array_equal(window.view.acquisition, [0, 1, 2, 3, 4])
    push(window, 10)
    np.testing.assert_array_equal(window.view.acquisition, [5, 6, 7, 8])
    push(window, 9)
    np.testing.assert_array_equal(window.view.acquisition, [5, 6, 7, 8, 9])


def test_a_whole_window_stays_intact_while_the_next_one_is_filled():
    window = Window(3, 4, 8, mode="whole-turns", spare=0)
    for n in range(8, 400):
        push(window, n)
        assert window.intact(window.view)
        np.testing.assert_allclose(values_of(window.view), window.view.acquisition, rtol=1e-6)


@pytest.mark.parametrize("mode", ["sliding", "whole-turns"])
def test_the_revision_grows_when_a_view_names_something_else(mode):
    window = Window(3, 4, 4, mode=mode)
    revisions = []
    for n in range(12):
        push(window, n)
        revisions.append(window.view.revision)
    expected = np.diff(revisions) > 0
    np.testing.assert_array_equal(expected[3:], True if mode == "sliding" else [False, False, False, True] * 2)
    window.refilter(lambda counts, _: (counts.astype(np.float32) * 2, 0.0))
    assert window.view.revision == revisions[-1] + 1
    window.unfilter()
    assert window.view.revision == revisions[-1] + 2


@pytest.mark.parametrize("mode", ["sliding", "whole-turns"])
def test_projections_before_the_window_are_kept_for_windows_in_the_past(mode):
    window = Window(3, 4, 5, mode=mode, past=7)
    for n in range(33):
        push(window, n)
    kept, reach = window.kept, 12 if mode == "sliding" else 17
    assert (kept.begin, kept.end) == (33 - reach, 33)
    np.testing.assert_array_equal(kept.acquisition, np.arange(33 - reach, 33))
    np.testing.assert_allclose(values_of(kept), kept.acquisition, rtol=1e-6)
    np.testing.assert_array_equal(
        window.view.acquisition, np.arange(28, 33) if mode == "sliding" else np.arange(25, 30)
    )
    past = kept.between(24, 29)
    assert (len(past), past.begin, past.end) == (5, 24, 29)
    for name in ("unique_ids", "serials", "slots", "angles_rad", "frame_times_s", "clipped", "each_filtered"):
        np.testing.assert_array_equal(getattr(past, name), getattr(kept, name)[24 - kept.begin : 29 - kept.begin])


def test_from_where_it_begins_nothing_of_what_is_kept_was_dropped():
    window = Window(3, 4, 3, past=3)
    for n in (0, 1, 2, 3, 5, 6):
        push(window, n)
    assert (window.kept.begin, window.kept.end) == (1, 7)
    push(window, 6)
    # Six are kept, of which 6 is there twice: 0 has gone.
    assert window.kept.begin == 1
    push(window, 6)
    assert window.kept.begin == 2


def test_a_view_is_intact_for_as_long_as_its_oldest_projection_is_not_overwritten():
    window = Window(3, 4, 5, past=6, spare=2)
    for n in range(20):
        push(window, n)
    newest, past = window.view, window.kept.between(9, 14)
    for n in range(20, 28):
        push(window, n)
        assert window.intact(past) == (n < 22)
        assert window.intact(newest)
    push(window, 28)
    assert not window.intact(newest)


def test_serials_tell_a_projection_from_another_in_its_slot():
    window = Window(3, 4, 3, spare=1)
    for n in range(10):
        push(window, n)
    view = window.view
    np.testing.assert_array_equal(view.serials, [7, 8, 9])
    np.testing.assert_array_equal(view.slots, view.serials % 4)


def test_a_slots_version_rises_with_each_writing():
    window = Window(3, 4, 3, spare=1)
    for n in range(6):
        push(window, n)
    np.testing.assert_array_equal(window.view.projections.versions, [2, 2, 1, 1])


def test_a_window_larger_than_the_memory_is_refused_before_it_is_allocated():
    # 1500 + 383 slots of 2·10⁶ pixels: counts, filtered values, and these once more while they are filtered anew.
    expected = 1883 * (2 * 2000 * 1000 + 2 * 2 * 2002 * 1002)
    words = (
        f"window of 1500 projections of 2000×1000 pixels needs {expected} bytes (22.6 GB) and may take 22 GB "
        "(tomo.memory_gb): keep fewer projections (tomo.turns), bin the detector"
    )
    with pytest.raises(ValueError, match=re.escape(words)):
        Window(2000, 1000, 1500, memory_gb=22)
    Window(2000, 1000, 1500, memory_gb=23)


def test_what_is_kept_before_the_window_counts_when_memory_is_refused():
    expected = 2003 * (2 * 2000 * 1000 + 2 * 2 * 2002 * 1002)
    words = (
        "window of 1500 projections of 2000×1000 pixels, with 120 before them for time frames and windows in the past, "
        f"needs {expected} bytes (24.1 GB) and may take 23 GB"
    )
    with pytest.raises(ValueError, match=re.escape(words)):
        Window(2000, 1000, 1500, past=120, memory_gb=23)
    Window(2000, 1000, 1500, past=120, memory_gb=25)


def test_half_of_the_free_memory_is_the_limit_unless_another_is_set(monkeypatch):
    free = SimpleNamespace(available=80_000_000)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: free)
    with pytest.raises(ValueError, match=r"may take 0.04 GB \(half of the free memory\)"):
        Window(200, 200, 300)
    Window(200, 200, 100)
    Window(200, 200, 300, memory_gb=1)
