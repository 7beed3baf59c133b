"""Windows that end in the past: the images that were made then, for as long as all of them is kept."""

from dataclasses import replace

import numpy as np
import pytest
from analytic_balls import DARK, darks, make_block
from frame_scans import (
    CONE,
    PATCHES,
    XY,
    XZ,
    CountingKernel,
    N,
    assert_frames_are_windows,
    assert_same,
    images,
    pairs,
    part,
    reconstruction,
    scan,
)

from bluesky_jit.tomo.live import FilteredBackprojection


def test_pairs_until_an_acquisition_number_are_those_that_were_made_then():
    block, cut = scan(), 2 * N + 3
    result = reconstruction(part(block, np.arange(cut + 1)), history=N)
    then = pairs(result)
    for number in range(cut + 1, cut + N + 1):
        result.push(part(block, [number]))
        np.testing.assert_array_equal(pairs(result, until=cut), then)
    assert not np.array_equal(pairs(result), then)
    # One more, and the first projection of that window is no longer kept.
    result.push(part(block, [cut + N + 1]))
    assert result.pairs(PATCHES, until=cut) is None
    assert result.sequences((XY,), until=cut) is None
    assert result.pairs(PATCHES, until=cut + 1) is not None


def test_sequences_until_an_acquisition_number_are_those_that_were_made_then_and_leave_the_newest_as_they_are():
    block, cut, kernel = scan(), 2 * N + 3, CountingKernel()
    result = reconstruction(part(block, np.arange(cut + 1)), kernel=kernel, frames=3, frame_spacing=12, history=N + 24)
    then = result.sequences((XY, XZ))
    result.sequences((XY, XZ))
    for number in range(cut + 1, cut + N + 1):
        result.push(part(block, [number]))
        result.sequences((XY, XZ))
        kernel.calls.clear()
        past = result.sequences((XY, XZ), until=cut)
        # One table for each shape, with what the frames have in common once.
        assert kernel.calls == [N + 24] * 2
        assert (past.angles, past.frame_time_s, past.pushed) == (then.angles, then.frame_time_s, then.pushed)
        assert past.complete
        for ours, expected in zip(images(past), images(then), strict=True):
            assert_same(ours, expected)
    kernel.calls.clear()
    result.push(part(block, [cut + N + 1]))
    result.sequences((XY,))
    assert kernel.calls == [2] * 3


def test_a_window_in_the_past_is_there_when_it_was_complete_then():
    """A turn that lacks less than 15° counts as complete; so it does when it is past."""
    block, result = scan(np.deg2rad(5.0) * np.arange(80)), reconstruction(n_projections=72, history=72)
    completed = []
    for number in range(80):
        result.push(part(block, [number]))
        completed.append(result.complete)
    assert completed.index(True) == 69
    assert [result.pairs(PATCHES, until=number) is not None for number in range(80)] == completed


def test_frames_of_a_run_that_is_joined_late_begin_when_they_are_complete():
    block = part(scan(), np.arange(2 * N + 7, 7 * N))
    result = reconstruction(part(block, np.arange(N)), frames=3, frame_spacing=12)
    assert result.pairs(PATCHES) is None
    result.push(part(block, np.arange(N, N + 24)))
    assert pairs(result).shape == (3, 2, 3, 1, 20, 20)


def test_a_window_from_which_frames_sent_again_have_pushed_a_projection_out_is_not_made():
    block, cut = scan(), 2 * N
    result = reconstruction(part(block, np.arange(cut + N - 1)), history=N)
    then = pairs(result, until=cut)
    # The store keeps 80 projections, which reach back to number 39; the window begins at 41.
    for _ in range(2):
        result.push(part(block, [cut + N - 2]))
        np.testing.assert_array_equal(pairs(result, until=cut), then)
    result.push(part(block, [cut + N - 2]))
    assert result.pairs(PATCHES, until=cut) is None


def test_late_flats_take_effect_in_the_past_too():
    block, brighter = part(scan(), np.arange(2 * N)), make_block("flat", np.full((5, 16, 48), 64_000))
    brighter = replace(brighter, after=0)
    result = reconstruction(block, frames=3, frame_spacing=12, history=2 * N)
    before = pairs(result, until=2 * N - 4)
    result.push(brighter)
    np.testing.assert_array_equal(pairs(result, until=2 * N - 4), before)
    assert result.settle()
    assert_frames_are_windows(result, block, (2 * N - 25, 2 * N - 13, 2 * N - 1), before=(brighter,))
    assert not np.array_equal(pairs(result, until=2 * N - 4), before)


def test_nothing_of_the_past_is_made_of_flats_that_late_darks_have_shown_to_be_dark():
    result = FilteredBackprojection(CONE, n_projections=N, history=N)
    result.push(make_block("flat", np.full((2, 16, 48), DARK)))
    result.push(part(scan(), np.arange(2 * N)))
    assert result.pairs(PATCHES, until=N + 5) is not None
    with pytest.raises(ValueError, match="Did the shutter open"):
        result.push(darks(CONE))
    assert result.pairs(PATCHES, until=N + 5) is None


def test_with_whole_turns_the_past_is_made_of_whole_windows():
    block = scan()
    result = reconstruction(part(block, np.arange(3 * N + 7)), window="whole-turns", history=N)
    last, before = (pairs(reconstruction(part(block, np.arange(end)))) for end in (3 * N, 2 * N))
    assert_same(pairs(result), last)
    for until, expected in ((3 * N + 6, last), (3 * N - 1, last), (3 * N - 2, before), (2 * N - 1, before)):
        assert_same(pairs(result, until=until), expected)
    assert result.pairs(PATCHES, until=N - 1) is None
    frames = reconstruction(
        part(block, np.arange(3 * N + 7)), window="whole-turns", frames=3, frame_spacing=N, n_splits=2
    )
    assert_frames_are_windows(frames, block, (N - 1, 2 * N - 1, 3 * N - 1))
