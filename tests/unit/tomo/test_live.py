"""The live reconstructor: splits that know nothing of each other, flats that come late, and what it says of itself."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from analytic_balls import BEAM, DARK, Ball, counts_of, darks, flats, line_integrals, make_block, projections

from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection
from bluesky_jit.tomo.prepare import Preparation
from bluesky_jit.tomo.reconstructor import Reconstructor
from bluesky_jit.tomo.window import Window

CONE = ConeGeometry(n_u=48, n_v=32, pixel_mm=1.0, source_axis_mm=100, source_detector_mm=200)
BALLS = [Ball((2, 1, 0), 7, 0.02), Ball((-3, -3, 1), 2, 0.02)]
N = 40
ANGLES = np.arange(N) * 2 * np.pi / N
GRIDS = (Grid.slice_xy(voxel_mm=0.6, shape=(24, 28)), Grid.slice_xz(voxel_mm=0.6, shape=(20, 28)))
PATCHES = tuple(Grid.slice_xy(voxel_mm=0.5, shape=(20, 20)).moved((n, 0, n)) for n in range(3))


def noisy(seed=0, n=N):
    rng = np.random.default_rng(seed)
    angles = np.arange(n) * 2 * np.pi / N
    clean = np.resize(counts_of(line_integrals(CONE, BALLS, ANGLES)), (n, CONE.n_v, CONE.n_u))
    return make_block("projection", rng.poisson(clean), angles_rad=angles)


def reconstruction(*blocks, n_splits=2, n_projections=N, geometry=CONE, kernel="auto"):
    result = FilteredBackprojection(geometry, n_projections=n_projections, n_splits=n_splits, kernel=kernel)
    for block in blocks:
        result.push(block)
    return result


def images(result, grids=GRIDS):
    made = result.slices(grids)
    assert made is not None
    return made.images


def pairs(result, grids=PATCHES):
    made = result.pairs(grids)
    assert made is not None
    assert made.shape[2] == 1
    return made[:, :, 0]


def changed(block, number, *, by=500):
    counts = block.counts.copy()
    counts[number] += by
    return make_block(block.kind, counts, angles_rad=block.angles_rad, acquisition=block.acquisition)


def part(block, numbers):
    return make_block(
        block.kind, block.counts[numbers], angles_rad=block.angles_rad[numbers], acquisition=block.acquisition[numbers]
    )


@pytest.mark.parametrize("n_splits", [1, 2, 3, 5])
def test_the_full_slice_is_the_mean_of_its_splits(n_splits):
    result = reconstruction(darks(CONE), flats(CONE), noisy(), n_splits=n_splits)
    halves = pairs(result)
    assert halves.shape == (3, n_splits, 1, 20, 20)
    full = np.stack(images(result, PATCHES))
    np.testing.assert_allclose(halves.mean(axis=1), full, rtol=0, atol=2e-5 * np.abs(full).max())


@pytest.mark.parametrize("n_splits", [2, 3])
@pytest.mark.parametrize("lost", [None, 11], ids=["none lost", "one lost"])
def test_perturbing_one_projection_leaves_every_other_split_bit_identical(n_splits, lost):
    block = noisy()
    kept = np.delete(np.arange(N), [] if lost is None else [lost])
    before = pairs(reconstruction(darks(CONE), flats(CONE), part(block, kept), n_splits=n_splits))
    after = pairs(reconstruction(darks(CONE), flats(CONE), part(changed(block, 17), kept), n_splits=n_splits))
    for split in range(n_splits):
        same = np.array_equal(before[:, split], after[:, split])
        assert same == (split != 17 % n_splits)


def test_a_projection_keeps_its_split_wherever_it_lies_in_the_window():
    block = noisy(n=3 * N)
    for last in (N, N + 7, 2 * N + 13):
        numbers = np.arange(last)
        before = pairs(reconstruction(darks(CONE), flats(CONE), part(block, numbers)))
        after = pairs(reconstruction(darks(CONE), flats(CONE), part(changed(block, last - 5), numbers)))
        untouched = 1 - (last - 5) % 2
        np.testing.assert_array_equal(before[:, untouched], after[:, untouched])
        assert not np.array_equal(before[:, 1 - untouched], after[:, 1 - untouched])


def test_flats_and_darks_that_come_late_give_what_early_ones_give():
    block = noisy()
    early = images(reconstruction(darks(CONE), flats(CONE), block))
    late = reconstruction(part(block, np.arange(30)))
    assert not late.ready
    assert late.slices(GRIDS) is None
    assert late.pairs(PATCHES) is None
    late.push(flats(CONE))
    assert late.ready
    assert late.slices(GRIDS) is None
    late.push(part(block, np.arange(30, N)))
    assert late.slices(GRIDS) is not None
    late.push(darks(CONE))
    late.settle()
    for ours, expected in zip(images(late), early, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_late_flats_that_come_one_by_one_filter_the_window_once(monkeypatch):
    refilter, times = Window.refilter, []

    def counted(window, function, **how):
        times.append(len(window.view))
        refilter(window, function, **how)

    monkeypatch.setattr(Window, "refilter", counted)
    block = noisy()
    result = reconstruction(darks(CONE), flats(CONE), part(block, np.arange(30)))
    before = images(result)
    brighter = replace(make_block("flat", np.full((1, CONE.n_v, CONE.n_u), 64_000)), after=0)
    for _ in range(5):
        result.push(brighter)
    assert times == []
    for ours, expected in zip(images(result), before, strict=True):
        np.testing.assert_array_equal(ours, expected)
    result.push(part(block, np.arange(30, N)))
    assert times == [30]
    result.push(brighter)
    assert [result.settle(), result.settle()] == [True, False]
    assert times == [30, N]
    early = reconstruction(darks(CONE), flats(CONE), *(brighter for _ in range(6)), block)
    for ours, expected in zip(images(result), images(early), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_flats_whose_filtering_failed_take_effect_the_next_time(monkeypatch):
    block = noisy()
    result = reconstruction(darks(CONE), flats(CONE), block)
    brighter = replace(make_block("flat", np.full((5, CONE.n_v, CONE.n_u), 64_000)), after=0)
    before = images(result)
    filtered, calls = Preparation.filtered, []

    def fails_once(preparation, counts, info, row_weight=None):
        calls.append(info)
        if len(calls) == 7:
            raise MemoryError("no room")
        return filtered(preparation, counts, info, row_weight)

    monkeypatch.setattr(Preparation, "filtered", fails_once)
    result.push(brighter)
    with pytest.raises(MemoryError):
        result.settle()
    np.testing.assert_array_equal(images(result)[0], before[0])
    assert result.settle()
    right = images(reconstruction(darks(CONE), flats(CONE), brighter, block))
    for ours, expected in zip(images(result), right, strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert not result.settle()


def shut(kind="flat", n=2):
    return make_block(kind, np.full((n, CONE.n_v, CONE.n_u), DARK))


def test_flats_with_the_shutter_closed_are_refused_and_good_ones_work_afterwards():
    result = reconstruction(darks(CONE))
    with pytest.raises(ValueError, match="Did the shutter open"):
        result.push(shut())
    block = noisy()
    result.push(part(block, np.arange(30)))
    assert not result.ready
    assert result.slices(GRIDS) is None
    result.push(flats(CONE))
    result.push(part(block, np.arange(30, N)))
    for ours, expected in zip(images(result), images(reconstruction(darks(CONE), flats(CONE), block)), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_nothing_is_shown_any_more_of_flats_that_late_darks_have_shown_to_be_dark():
    block = noisy()
    result = reconstruction(shut(), block)
    assert result.slices(GRIDS) is not None
    with pytest.raises(ValueError, match="Did the shutter open"):
        result.push(darks(CONE))
    result.settle()
    assert result.slices(GRIDS) is None
    assert not result.complete
    result.push(flats(CONE))
    result.settle()
    for ours, expected in zip(images(result), images(reconstruction(darks(CONE), flats(CONE), block)), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_one_block_or_many_give_the_same():
    block = noisy()
    together = images(reconstruction(darks(CONE), flats(CONE), block))
    apart = images(reconstruction(darks(CONE), flats(CONE), *(part(block, [n]) for n in range(N))))
    for ours, expected in zip(apart, together, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_only_the_window_counts_however_much_came_before():
    block = noisy(n=3 * N)
    long = reconstruction(darks(CONE), flats(CONE), block)
    short = reconstruction(darks(CONE), flats(CONE), part(block, np.arange(2 * N, 3 * N)))
    assert long.window_count == N
    for ours, expected in zip(images(long), images(short), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_slices_say_what_they_were_made_of():
    block = noisy(n=N + 6)
    made = reconstruction(darks(CONE), flats(CONE), block).slices(GRIDS)
    assert made is not None
    assert [image.shape for image in made.images] == [grid.shape for grid in GRIDS]
    assert all(image.dtype == np.float32 for image in made.images)
    assert (made.angles.count, made.angles.first_id, made.angles.last_id) == (N, 1006, 1045)
    assert made.angles.arc_rad == pytest.approx(2 * np.pi)
    assert made.angles.source == "same stream"
    assert made.frame_time_s == block.frame_times_s[-1]
    assert made.pushed == N + 6
    assert made.complete
    assert made.clipped_fraction == 0


def test_clipped_pixels_are_counted():
    counts = noisy().counts.copy()
    counts[:4, :2] = 0
    result = reconstruction(darks(CONE), flats(CONE), make_block("projection", counts, angles_rad=ANGLES))
    expected = 4 * 2 * CONE.n_u / counts.size
    made = result.slices(GRIDS)
    assert made is not None
    assert made.clipped_fraction == pytest.approx(expected)
    assert result.clipped_fraction == pytest.approx(expected)
    assert all(np.isfinite(image).all() for image in made.images)


def test_saturated_pixels_are_counted_as_clipped():
    counts = noisy().counts.copy()
    counts[:, 0] = 65535
    result = reconstruction(darks(CONE), flats(CONE), make_block("projection", counts, angles_rad=ANGLES))
    assert result.clipped_fraction == pytest.approx(1 / CONE.n_v)


def test_a_single_value_does_not_grow_with_the_number_of_projections():
    few, many = (projections(CONE, BALLS, np.arange(n) * 2 * np.pi / n) for n in (60, 180))
    inside = (Grid.slice_xy(voxel_mm=0.3, shape=(9, 9)).moved((3, 1, 0)),)
    means = [
        images(reconstruction(darks(CONE), flats(CONE), block, n_projections=len(block)), inside)[0].mean()
        for block in (few, many)
    ]
    assert means[0] == pytest.approx(means[1], rel=5e-3)
    assert means[1] == pytest.approx(0.02, rel=5e-3)


def test_the_window_is_complete_when_it_covers_a_full_turn_and_slices_say_so():
    result = reconstruction(darks(CONE), flats(CONE))
    assert not result.complete
    block = noisy()
    result.push(part(block, np.arange(20)))
    made = result.slices(GRIDS)
    assert made is not None
    assert (result.complete, made.complete) == (False, False)
    result.push(part(block, np.arange(20, N)))
    made = result.slices(GRIDS)
    assert made is not None
    assert (result.complete, made.complete) == (True, True)


def test_half_a_turn_of_a_cone_gives_half_the_attenuation_and_a_warning_says_so():
    inside = (Grid.slice_xy(voxel_mm=0.3, shape=(9, 9)).moved((3, 1, 0)),)
    clean = projections(CONE, BALLS, ANGLES)
    result = reconstruction(darks(CONE), flats(CONE), part(clean, np.arange(20)))
    assert images(result, inside)[0].mean() == pytest.approx(0.01, rel=0.1)
    [text] = result.warnings()
    assert text.startswith("the projections cover only 180° of 360°: attenuation is too low by about 50%; measure")
    result.push(part(clean, np.arange(20, N)))
    assert images(result, inside)[0].mean() == pytest.approx(0.02, rel=0.01)
    assert result.warnings() == ()


def test_a_warning_says_that_a_dark_of_zero_is_assumed_until_darks_come():
    result = reconstruction(flats(CONE))
    assert result.warnings() == ()
    result.push(noisy())
    [text] = result.warnings()
    assert "a dark of 0 counts is assumed" in text
    assert "take darks" in text
    result.push(darks(CONE))
    result.settle()
    assert result.warnings() == ()


@pytest.mark.parametrize(
    ("counts", "part_text", "remedy"),
    [
        (DARK, "48 of 1536 pixels (3.1%) are dead in the flats", "take flats again"),
        (65535, "3.1% of the flats' pixels are saturated", "shorter exposure"),
    ],
)
def test_warnings_count_dead_and_saturated_pixels_of_the_flats(counts, part_text, remedy):
    few, many = (np.full((2, CONE.n_v, CONE.n_u), DARK + BEAM) for _ in range(2))
    few[:, 5, :15] = counts
    many[:, 5] = counts
    assert reconstruction(darks(CONE), make_block("flat", few), noisy()).warnings() == ()
    [text] = reconstruction(darks(CONE), make_block("flat", many), noisy()).warnings()
    assert part_text in text
    assert remedy in text


def test_a_tilted_axis_is_told_with_what_it_leaves_out():
    tilted = replace(CONE, n_v=48, axis_tilt_rad=-0.5)
    result = reconstruction(darks(tilted), flats(tilted), geometry=tilted)
    (text,) = [text for text in result.warnings() if "tilted" in text]
    assert "tilted by 28.6°" in text
    assert "0.12 of all, are not measured" in text
    assert "values are too low" in text
    upright = reconstruction(darks(CONE), flats(CONE))
    assert not any("tilted" in text for text in upright.warnings())


def test_without_flats_there_is_nothing_to_warn_of():
    assert reconstruction(noisy()).warnings() == ()


def test_filtered_backprojection_is_a_reconstructor():
    assert isinstance(reconstruction(), Reconstructor)


def test_half_a_turn_completes_a_parallel_beam():
    parallel = ParallelGeometry(n_u=48, n_v=32, pixel_mm=1.0)
    angles = np.arange(30) * np.pi / 30
    result = reconstruction(darks(parallel), flats(parallel), geometry=parallel, n_projections=30)
    result.push(projections(parallel, BALLS, angles[:15]))
    assert not result.complete
    result.push(projections(parallel, BALLS, angles[15:], acquisition=np.arange(15, 30)))
    assert result.complete


def test_a_few_golden_angles_cover_the_turn_thinly_and_are_not_complete():
    golden = np.pi * (3 - np.sqrt(5)) * np.arange(N)
    result = reconstruction(darks(CONE), flats(CONE), projections(CONE, BALLS, golden[:5]))
    assert not result.complete
    result.push(projections(CONE, BALLS, golden[5:], acquisition=np.arange(5, N)))
    assert result.complete


def test_nothing_is_made_before_each_split_has_two_projections():
    block = noisy()
    result = reconstruction(darks(CONE), flats(CONE), part(block, [0, 2, 4, 6, 7]))
    assert result.slices(GRIDS) is None
    result.push(part(block, [9]))
    assert result.slices(GRIDS) is not None


def test_moving_the_axis_gives_what_a_geometry_with_that_offset_gives():
    offset = ConeGeometry(**{**_without_kind(CONE), "axis_offset_mm": 0.4})
    block = projections(offset, BALLS, ANGLES)
    tuned = reconstruction(darks(CONE), flats(CONE), block)
    tuned.set_axis_offset(0.4)
    assert tuned.geometry == offset
    right = images(reconstruction(darks(CONE), flats(CONE), block, geometry=offset))
    for ours, expected in zip(images(tuned), right, strict=True):
        np.testing.assert_allclose(ours, expected, atol=2e-3 * 0.02)


def test_weights_follow_the_axis_when_they_change_by_more_than_a_trifle():
    offset = ConeGeometry(**{**_without_kind(CONE), "axis_offset_mm": 0.4})
    block = projections(offset, BALLS, ANGLES)
    tuned = reconstruction(darks(CONE), flats(CONE), block)
    settled = []
    # u reaches 12 mm at the axis, 100 mm from the source: the weights change by 1.2e-3 for each mm.
    for offset_mm in (0.1, 0.15, 0.18, 0.25, 0.3, 0.4):
        tuned.set_axis_offset(offset_mm)
        settled.append(tuned.settle())
    assert settled == [False, False, True, False, False, True]
    right = images(reconstruction(darks(CONE), flats(CONE), block, geometry=offset))
    for ours, expected in zip(images(tuned), right, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_a_parallel_beams_weights_do_not_depend_on_the_axis():
    parallel = ParallelGeometry(n_u=48, n_v=32, pixel_mm=0.5)
    block = projections(parallel, BALLS, ANGLES)
    result = reconstruction(darks(parallel), flats(parallel), block, geometry=parallel)
    result.set_axis_offset(2.0)
    assert not result.settle()


def _without_kind(geometry):
    return {name: value for name, value in geometry.to_metadata().items() if name != "kind"}


def test_the_kernels_agree_through_the_whole_chain():
    blocks = darks(CONE), flats(CONE), noisy()
    fast, exact = (images(reconstruction(*blocks, kernel=kernel)) for kernel in ("numba", "reference"))
    for ours, expected in zip(fast, exact, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=3e-4 * np.abs(expected).max())


def test_readers_on_other_threads_always_see_projections_that_belong_together():
    # Every projection of the same balls: whichever forty a reader meets, the slice is the same.
    clean = counts_of(line_integrals(CONE, BALLS, ANGLES))
    result = reconstruction(darks(CONE), flats(CONE), make_block("projection", clean, angles_rad=ANGLES))
    expected = images(result)[0]
    worst, stop = [0.0], threading.Event()

    def read():
        while not stop.is_set():
            made = result.slices(GRIDS[:1])
            if made is not None:
                worst[0] = max(worst[0], float(np.abs(made.images[0] - expected).max()))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for n in range(N, 12 * N):
            angle = n * 2 * np.pi / N
            result.push(make_block("projection", clean[[n % N]], angles_rad=[angle], acquisition=[n]))
    finally:
        stop.set()
        reader.join()
    assert worst[0] < 1e-5 * np.abs(expected).max()


def test_frames_of_the_wrong_size_and_projections_without_angle_are_refused():
    result = reconstruction()
    with pytest.raises(ValueError, match=r"flat frames are \(9, 9\) pixels and the geometry's detector \(32, 48\)"):
        result.push(make_block("flat", np.zeros((1, 9, 9))))
    with pytest.raises(ValueError, match="projection 7 has no angle"):
        result.push(make_block("projection", np.zeros((1, 32, 48)), acquisition=[7]))
    with pytest.raises(ValueError, match="each split needs at least two projections"):
        FilteredBackprojection(CONE, n_projections=3, n_splits=2)


def test_asking_for_no_grids_gives_no_images():
    result = reconstruction(darks(CONE), flats(CONE), noisy())
    assert images(result, ()) == ()
    assert len(pairs(result, ())) == 0
