"""Time frames and windows that end in the past: which projections they are of, and that splits stay apart."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from analytic_balls import DARK, Ball, counts_of, darks, flats, line_integrals, make_block

from bluesky_jit.tomo.frames import Frames
from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Priority
from bluesky_jit.tomo.kernels import choose
from bluesky_jit.tomo.live import FilteredBackprojection
from bluesky_jit.tomo.prepare import FrameInfo
from bluesky_jit.tomo.sequence import make_sequence
from bluesky_jit.tomo.window import Window

CONE = ConeGeometry(n_u=48, n_v=16, pixel_mm=1.0, source_axis_mm=100, source_detector_mm=200)
BALLS = [Ball((2, 1, 0), 7, 0.02), Ball((-3, -3, 1), 2, 0.02)]
N = 40
XY = Grid.slice_xy(voxel_mm=0.6, shape=(24, 28))
XZ = Grid.slice_xz(voxel_mm=0.6, shape=(20, 28))
PATCHES = tuple(Grid.slice_xy(voxel_mm=0.5, shape=(20, 20)).moved((n, 0, n)) for n in range(3))
STEADY = 2 * np.pi / N * np.arange(8 * N)
ANGLES = {
    "steady": STEADY,
    "the stage does not keep its steps": STEADY + np.random.default_rng(4).uniform(-0.03, 0.03, len(STEADY)),
    "turns that do not repeat": 2 * np.pi / 37.3 * np.arange(len(STEADY)),
    "golden": np.pi * (3 - np.sqrt(5)) * np.arange(len(STEADY)),
}


def scan(angles=STEADY, *, geometry=CONE, seed=0):
    """Return projections whose noise differs from turn to turn."""
    counts = counts_of(line_integrals(geometry, BALLS, angles))
    return make_block("projection", np.random.default_rng(seed).poisson(counts), angles_rad=angles)


def part(block, numbers):
    return make_block(
        block.kind, block.counts[numbers], angles_rad=block.angles_rad[numbers], acquisition=block.acquisition[numbers]
    )


def reconstruction(*blocks, geometry=CONE, **how):
    result = FilteredBackprojection(geometry, **{"n_projections": N, "kernel": "numba"} | how)
    for block in (darks(geometry), flats(geometry), *blocks):
        result.push(block)
    return result


def images(made):
    assert made is not None
    return made.images


def pairs(result, **how):
    made = result.pairs(PATCHES, **how)
    assert made is not None
    return made


def assert_same(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def assert_frames_are_windows(result, block, ends, *, before=(), **how):
    """Compare all frames of a result with what reconstructions show whose scans end where the frames do."""
    made, sequence = pairs(result), images(result.sequences((XY, XZ)))
    n_splits = made.shape[1]
    assert made.shape == (3, n_splits, len(ends), 1, 20, 20)
    assert made.dtype == np.float32
    for frame, end in enumerate(ends):
        alone = reconstruction(*before, part(block, block.acquisition <= end), n_splits=n_splits, **how)
        assert_same(made[:, :, frame], pairs(alone)[:, :, 0])
        for ours, expected in zip(sequence, images(alone.slices((XY, XZ))), strict=True):
            assert_same(ours[frame], expected)


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
        assert (past.angles, past.complete, past.frame_time_s) == (then.angles, True, then.frame_time_s)
        for ours, expected in zip(images(past), images(then), strict=True):
            assert_same(ours, expected)
    kernel.calls.clear()
    result.push(part(block, [cut + N + 1]))
    result.sequences((XY,))
    assert kernel.calls == [2] * 3


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


class CountingKernel:
    """Run the usual kernel and note how many projections each call adds."""

    def __init__(self):
        self.kernel = choose("numba")
        self.calls = []

    def run(self, jobs, *, out=None):
        self.calls.append(len(jobs.slots))
        return self.kernel.run(jobs, out=out)


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
