"""Time frames: which projections each is of, that splits stay apart, and what they cost."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from analytic_balls import counts_of, line_integrals, make_block
from frame_scans import (
    ANGLES,
    BALLS,
    CONE,
    PATCHES,
    STEADY,
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

from bluesky_jit.tomo.frames import Frames
from bluesky_jit.tomo.geometry import ParallelGeometry
from bluesky_jit.tomo.jobs import Priority
from bluesky_jit.tomo.prepare import FrameInfo
from bluesky_jit.tomo.sequence import make_sequence
from bluesky_jit.tomo.window import Window


@pytest.mark.parametrize("lost", [[], [71, 88, 89]], ids=["none lost", "three lost"])
@pytest.mark.parametrize("angles", ANGLES.values(), ids=ANGLES.keys())
@pytest.mark.parametrize("n_splits", [2, 3])
def test_each_frame_is_the_image_of_the_window_that_ended_so_much_earlier(angles, n_splits, lost):
    newest = 3 * N + 5
    block = part(scan(angles), np.delete(np.arange(newest + 1), lost))
    result = reconstruction(block, frames=3, frame_spacing=12, n_splits=n_splits)
    assert_frames_are_windows(result, block, (newest - 24, newest - 12, newest))


@pytest.mark.parametrize("angles", ANGLES.values(), ids=ANGLES.keys())
def test_the_weights_of_each_split_of_each_frame_sum_to_the_arc(angles):
    window = Window(2, 2, N, past=24)
    for number in np.delete(np.arange(2 * N), [58, 60, 71]):
        info = FrameInfo(angle_rad=angles[number], acquisition=number, time_s=0.0)
        window.push(np.zeros((2, 2), np.uint16), np.zeros((2, 2), np.float32), info, unique_id=number)
    frames = Frames(n_projections=N, n_splits=2, count=3, spacing=12, history=0, mode="sliding")
    windows = frames.windows(window.kept, None)
    assert windows is not None
    sequence = make_sequence(windows, window.kept, CONE, 2)
    for plan in sequence.plans:
        assert plan.arc.closed
        for split in range(2):
            # A turn sees every line twice.
            assert plan.scales[plan.splits == split].sum() == pytest.approx(np.pi)
    # What is added once for all frames that share it comes to the same.
    jobs = sequence.jobs((XY,), splits=True, priority=Priority.PAIRS)
    sums = np.bincount(jobs.splits, weights=jobs.scales, minlength=jobs.n_splits)
    totals = sequence.frames_of(sums.reshape(1, -1, 1, 1, 1))
    np.testing.assert_allclose(totals.reshape(2, 3), np.pi)


def test_frames_further_apart_than_a_window_have_nothing_in_common():
    block = part(scan(), np.arange(5 * N))
    result = reconstruction(block, frames=3, frame_spacing=N + 10)
    assert_frames_are_windows(result, block, (5 * N - 1 - 2 * (N + 10), 5 * N - 1 - (N + 10), 5 * N - 1))


def test_frames_follow_each_projection():
    block, result = scan(), reconstruction(frames=5, frame_spacing=4)
    for number in range(5 * N):
        result.push(part(block, [number]))
        result.sequences((XY, XZ))
    assert_frames_are_windows(result, block, [5 * N - 1 - 4 * k for k in (4, 3, 2, 1, 0)])


def test_frames_of_a_parallel_beam_are_half_turns():
    parallel = ParallelGeometry(n_u=48, n_v=16, pixel_mm=1.0)
    block = part(scan(np.pi / N * np.arange(4 * N), geometry=parallel), np.arange(3 * N))
    result = reconstruction(block, geometry=parallel, frames=3, frame_spacing=10)
    assert_frames_are_windows(result, block, (3 * N - 21, 3 * N - 11, 3 * N - 1), geometry=parallel)


def test_slices_are_those_of_the_newest_window_whatever_is_kept_before_it():
    block = part(scan(), np.arange(3 * N + 5))
    plain = reconstruction(block)
    for keeping in ({"frames": 3, "frame_spacing": 12}, {"history": 55}):
        result = reconstruction(block, **keeping)
        assert result.window_count == N
        for ours, expected in zip(images(result.slices((XY, XZ))), images(plain.slices((XY, XZ))), strict=True):
            np.testing.assert_array_equal(ours, expected)


def test_a_single_frame_is_the_slice_on_show():
    result = reconstruction(part(scan(), np.arange(N // 2)))
    np.testing.assert_array_equal(images(result.sequences((XY,)))[0][0], images(result.slices((XY,)))[0])
    assert not result.complete


@pytest.mark.parametrize("lost", [None, 58], ids=["none lost", "one lost"])
@pytest.mark.parametrize("n_splits", [2, 3])
def test_perturbing_one_projection_leaves_every_other_split_of_every_frame_bit_identical(n_splits, lost):
    block, touched = part(scan(), np.delete(np.arange(2 * N), [] if lost is None else [lost])), 61
    counts = block.counts.copy()
    counts[block.acquisition == touched] += 500
    other = make_block("projection", counts, angles_rad=block.angles_rad, acquisition=block.acquisition)
    how = {"frames": 3, "frame_spacing": 12, "n_splits": n_splits}
    before, after = (pairs(reconstruction(one, **how)) for one in (block, other))
    for split in range(n_splits):
        for frame in range(3):
            # Of the windows, which end at 55, 67 and 79, the first does not have projection 61.
            same = np.array_equal(before[:, split, frame], after[:, split, frame])
            assert same == (split != touched % n_splits or frame == 0)


def test_a_sequence_is_described_by_its_middle_frame():
    block, end = scan(), 2 * N + 3
    result = reconstruction(part(block, np.arange(end + 1)), frames=3, frame_spacing=12)
    middle = reconstruction(part(block, np.arange(end + 1 - 12))).slices((XY,))
    made = result.sequences((XY,))
    assert (made.angles, made.pushed, made.frame_time_s) == (middle.angles, middle.pushed, middle.frame_time_s)
    assert_same(made.images[0][1], middle.images[0])


def test_a_new_projection_costs_two_for_each_frame():
    block, kernel = scan(), CountingKernel()
    result = reconstruction(part(block, np.arange(2 * N)), kernel=kernel, frames=3, frame_spacing=12)
    for _ in range(2):
        result.sequences((XY,))
    for number in range(2 * N, 2 * N + 5):
        result.push(part(block, [number]))
        kernel.calls.clear()
        result.sequences((XY,))
        assert kernel.calls == [2, 2, 2]
        # The newest frame's image is that of the slice on show.
        result.slices((XY,))
        assert kernel.calls == [2, 2, 2]


def test_pairs_of_several_frames_cost_what_they_do_not_have_in_common():
    kernel = CountingKernel()
    result = reconstruction(part(scan(), np.arange(2 * N)), kernel=kernel, frames=3, frame_spacing=4)
    result.pairs(PATCHES)
    assert kernel.calls == [N + 8]


def test_what_has_not_come_yet_is_not_made():
    block = scan()
    result = reconstruction(part(block, np.arange(N)), frames=3, frame_spacing=12)
    assert (result.newest, result.n_projections) == (N - 1, N)
    assert result.complete
    assert result.pairs(PATCHES) is None
    assert result.sequences((XY,)) is None
    result.push(part(block, np.arange(N, N + 24)))
    assert result.pairs(PATCHES) is not None
    assert result.pairs(PATCHES, until=N + 23) is not None
    assert result.pairs(PATCHES, until=N + 24) is None
    assert reconstruction().newest is None
    assert reconstruction().pairs(PATCHES, until=0) is None


@pytest.mark.parametrize("extended", [False, True], ids=["plain", "extended field"])
def test_all_frames_move_with_the_axis(extended):
    true = replace(CONE, n_u=60, axis_offset_mm=0.5)
    if extended:
        true = replace(true, detector_u_mm=12.0, extended_field=True)
    block = part(scan(geometry=true), np.arange(2 * N))
    how = {"frames": 3, "frame_spacing": 12}
    result, right = (
        reconstruction(block, geometry=geometry, **how) for geometry in (replace(true, axis_offset_mm=0.0), true)
    )
    before = pairs(result)
    result.set_axis_offset(0.5)
    # Until the weights have followed, an extended field is shown of the axis before.
    assert np.array_equal(pairs(result), before) == extended
    assert result.settle()
    np.testing.assert_allclose(pairs(result), pairs(right), rtol=0, atol=2e-4 * np.abs(before).max())
    assert_frames_are_windows(right, block, (2 * N - 25, 2 * N - 13, 2 * N - 1), geometry=true)


def test_part_of_a_turn_is_one_window_and_a_warning_says_so():
    arc_rad, n = np.deg2rad(270), 30
    block = part(scan(), np.arange(n))
    result = reconstruction(block, planned_arc_rad=arc_rad, frames=3, frame_spacing=2)
    result.settle()
    assert result.complete
    assert result.slices((XY,)) is not None
    assert result.pairs(PATCHES) is None
    [text] = result.warnings()
    assert text.startswith("the projections cover 270° of 360°, which is one window and gives no 3 time frames: choose")
    single = reconstruction(block, planned_arc_rad=arc_rad, history=N)
    single.settle()
    assert single.warnings() == ()
    np.testing.assert_array_equal(pairs(single, until=n - 1), pairs(single))
    # Parker's weights are those of the whole arc, so that one which ends earlier would be too dark.
    assert single.pairs(PATCHES, until=n - 4) is None


def test_readers_on_other_threads_see_frames_of_projections_that_belong_together():
    # Every turn shows the same counts: whichever windows a reader meets, the image is the same.
    clean = counts_of(line_integrals(CONE, BALLS, STEADY[:N]))
    angles = STEADY[: 2 * N]
    how = {"frames": 3, "frame_spacing": 4, "history": 2 * N}
    result = reconstruction(make_block("projection", np.tile(clean, (2, 1, 1)), angles_rad=angles), **how)
    expected = images(result.slices((XY,)))[0]
    worst, stop = [0.0], threading.Event()

    def read():
        while not stop.is_set():
            for made in (result.sequences((XY,)), result.sequences((XY,), until=result.newest - N)):
                # None where more came meanwhile than the store has room for.
                for image in made.images[0] if made else ():
                    worst[0] = max(worst[0], float(np.abs(image - expected).max()))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for n in range(2 * N, 12 * N):
            angle = n * 2 * np.pi / N
            result.push(make_block("projection", clean[[n % N]], angles_rad=[angle], acquisition=[n]))
    finally:
        stop.set()
        reader.join()
    assert 0 < worst[0] < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"frames": 2}, "frames is 2: give an odd number"),
        ({"frames": 3, "frame_spacing": 7}, "frame_spacing is 7 projections and n_splits 2: give a multiple"),
        ({"frames": 3, "frame_spacing": 0}, "frame_spacing is 0"),
        ({"history": -1}, "history is -1"),
        ({"frames": 3, "window": "whole-turns"}, 'frame_spacing is 60 projections, and with window "whole-turns"'),
    ],
)
def test_frames_that_cannot_be_are_refused(how, words):
    with pytest.raises(ValueError, match=words):
        reconstruction(**how)
