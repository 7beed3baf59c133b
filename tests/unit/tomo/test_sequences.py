"""Time frames and windows that end in the past: which projections they are of, and that splits stay apart."""

import numpy as np
import pytest
from analytic_balls import Ball, counts_of, darks, flats, line_integrals, make_block

from bluesky_jit.tomo.geometry import ConeGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection

CONE = ConeGeometry(n_u=48, n_v=16, pixel_mm=1.0, source_axis_mm=100, source_detector_mm=200)
BALLS = [Ball((2, 1, 0), 7, 0.02), Ball((-3, -3, 1), 2, 0.02)]
N = 40
XY = Grid.slice_xy(voxel_mm=0.6, shape=(24, 28))
XZ = Grid.slice_xz(voxel_mm=0.6, shape=(20, 28))
PATCHES = tuple(Grid.slice_xy(voxel_mm=0.5, shape=(20, 20)).moved((n, 0, n)) for n in range(3))
STEADY = 2 * np.pi / N * np.arange(8 * N)
UNSTEADY = STEADY + np.random.default_rng(4).uniform(-0.03, 0.03, len(STEADY))


def scan(angles=STEADY, *, seed=0):
    """Return projections whose noise differs from turn to turn."""
    counts = counts_of(line_integrals(CONE, BALLS, angles))
    return make_block("projection", np.random.default_rng(seed).poisson(counts), angles_rad=angles)


def part(block, numbers):
    return make_block(
        block.kind, block.counts[numbers], angles_rad=block.angles_rad[numbers], acquisition=block.acquisition[numbers]
    )


def reconstruction(*blocks, **how):
    result = FilteredBackprojection(CONE, **{"n_projections": N, "kernel": "numba"} | how)
    for block in (darks(CONE), flats(CONE), *blocks):
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


@pytest.mark.parametrize("angles", [STEADY, UNSTEADY], ids=["steady", "unsteady"])
@pytest.mark.parametrize("n_splits", [2, 3])
def test_each_frame_is_the_image_of_the_window_that_ended_so_much_earlier(angles, n_splits):
    block, newest = scan(angles), 3 * N + 5
    result = reconstruction(part(block, np.arange(newest + 1)), frames=3, frame_spacing=12, n_splits=n_splits)
    made, sequence = pairs(result), images(result.sequences((XY, XZ)))
    assert made.shape == (3, n_splits, 3, 1, 20, 20)
    assert made.dtype == np.float32
    for frame, end in enumerate((newest - 24, newest - 12, newest)):
        alone = reconstruction(part(block, np.arange(end + 1)), n_splits=n_splits)
        assert_same(made[:, :, frame], pairs(alone)[:, :, 0])
        for ours, expected in zip(sequence, images(alone.slices((XY, XZ))), strict=True):
            assert_same(ours[frame], expected)


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


def test_what_has_not_come_yet_is_not_made():
    block = scan()
    result = reconstruction(part(block, np.arange(N + 23)), frames=3, frame_spacing=12)
    assert (result.newest, result.n_projections) == (N + 22, N)
    assert result.complete
    assert result.pairs(PATCHES) is None
    assert result.sequences((XY,)) is None
    result.push(part(block, [N + 23]))
    assert result.pairs(PATCHES) is not None
    assert result.pairs(PATCHES, until=N + 23) is not None
    assert result.pairs(PATCHES, until=N + 24) is None
    assert reconstruction().newest is None


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
