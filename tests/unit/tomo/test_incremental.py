"""Slices that are asked for again: as exact as made anew, at the cost of what has changed."""

import gc
import logging
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from analytic_balls import Ball, counts_of, darks, flats, line_integrals, make_block

from bluesky_jit.tomo import incremental
from bluesky_jit.tomo.geometry import ConeGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.kernels import choose
from bluesky_jit.tomo.live import FilteredBackprojection

CONE = ConeGeometry(n_u=48, n_v=16, pixel_mm=1.0, source_axis_mm=100, source_detector_mm=200)
BALLS = [Ball((2, 1, 0), 7, 0.02), Ball((-3, -3, 1), 2, 0.02)]
N = 40
STEP = 2 * np.pi / N
XY = Grid.slice_xy(voxel_mm=0.6, shape=(24, 28))
XZ = Grid.slice_xz(voxel_mm=0.6, shape=(20, 28))
GOLDEN = np.pi * (3 - np.sqrt(5))


class CountingKernel:
    """Run another kernel, note how many projections each call was for and where they lay, let something happen."""

    def __init__(self):
        self.kernel = choose("numba")
        self.calls = []
        self.meanwhile = None

    def run(self, jobs, *, out=None):
        self.calls.append(len(jobs.slots))
        self.store = weakref.ref(jobs.projections.values)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return self.kernel.run(jobs, out=out)

    def new_calls(self):
        calls, self.calls = self.calls, []
        return calls


def scan(angles, *, noise=True, seed=0):
    counts = counts_of(line_integrals(CONE, BALLS, angles))
    if noise:
        counts = np.random.default_rng(seed).poisson(counts)
    return make_block("projection", counts, angles_rad=angles)


def frame(block, number):
    chosen = [number]
    return make_block(
        block.kind, block.counts[chosen], angles_rad=block.angles_rad[chosen], acquisition=block.acquisition[chosen]
    )


def empty(*, n_projections=N, kernel="numba", **how):
    result = FilteredBackprojection(CONE, n_projections=n_projections, kernel=kernel, **how)
    result.push(darks(CONE))
    result.push(flats(CONE))
    return result


def images(result, *grids):
    made = result.slices(grids)
    assert made is not None
    return made.images


def warmed(block, *, kernel="numba", n=N, grids=(XY, XZ), **how):
    """Return a reconstruction of the first n projections that has been asked for grids often enough to keep them."""
    result = empty(kernel=kernel, **how)
    for number in range(n):
        result.push(frame(block, number))
    for _ in range(3):
        images(result, *grids)
    return result


def assert_as_if_made_anew(result, block, numbers, *, grids=(XY, XZ), n_projections=N):
    anew = empty(n_projections=n_projections)
    for number in numbers:
        anew.push(frame(block, number))
    for ours, expected in zip(images(result, *grids), images(anew, *grids), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


RNG = np.random.default_rng(8)
TURNS = 12
SCANS = {
    "even": (STEP * np.arange(TURNS * N), N),
    "the stage does not keep its steps": (STEP * (np.arange(TURNS * N) + RNG.uniform(-0.1, 0.1, TURNS * N)), N),
    "the window is not a whole turn": (STEP * np.arange(TURNS * N), 53),
    "turns that do not repeat": (2 * np.pi / 37.3 * np.arange(TURNS * N), 60),
    "golden": (GOLDEN * np.arange(TURNS * N), N),
    "to and fro": (np.abs(np.mod(STEP * np.arange(TURNS * N), 4 * np.pi) - 2 * np.pi), N),
}


@pytest.mark.parametrize(("angles", "window"), SCANS.values(), ids=SCANS.keys())
def test_after_many_turns_a_slice_is_as_if_made_anew(angles, window):
    block, result = scan(angles), empty(n_projections=window)
    for number in range(len(angles)):
        result.push(frame(block, number))
        if number > 10:
            images(result, XY, XZ)
    assert_as_if_made_anew(result, block, range(len(angles) - window, len(angles)), n_projections=window)


def test_lost_frames_late_ones_and_repeated_ones_are_followed():
    block, result = scan(STEP * np.arange(5 * N)), empty()
    late, lost = {100: 97, 150: 140, 181: 160}, {60, 61, 130}
    repeated = make_block(
        "projection", block.counts[[165]] + 300, angles_rad=block.angles_rad[[165]], acquisition=[165]
    )
    pushed = []
    for number in range(5 * N):
        if number in lost or number in late.values():
            continue
        pushed += [frame(block, number)]
        pushed += [frame(block, late[number])] if number in late else []
        pushed += [repeated] if number == 170 else []
    anew = empty()
    for n, one in enumerate(pushed):
        result.push(one)
        anew.push(one)
        if n > 10:
            images(result, XY, XZ)
        if n in (102, 147, 172, 182, len(pushed) - 1):
            fresh = np.stack(anew.pairs((XY, XY.moved((0, 0, 1)))))[0, :, 0].mean(axis=0)
            np.testing.assert_allclose(images(result, XY)[0], fresh, rtol=0, atol=1e-5 * np.abs(fresh).max())


@pytest.mark.parametrize(
    "how",
    [{"planned_arc_rad": np.deg2rad(250)}, {"window": "whole-turns"}, {"n_splits": 3}],
    ids=["part of a turn", "whole turns", "three splits"],
)
def test_a_slice_follows_an_arc_that_grows_and_other_windows(how):
    block = scan(2 * STEP / 3 * np.arange(65 if "planned_arc_rad" in how else 200))
    result = empty(n_projections=60, **how)
    for number in range(len(block)):
        result.push(frame(block, number))
        result.settle()
        if number > 10:
            image = images(result, XY)[0]
        if (number % 9 == 8 and number > 20) or number == len(block) - 1:
            fresh = result.pairs((XY,))[0, :, 0].mean(axis=0)
            np.testing.assert_allclose(image, fresh, rtol=0, atol=1e-5 * np.abs(fresh).max())


def test_a_new_projection_costs_two_not_a_whole_window():
    kernel, block = CountingKernel(), scan(STEP * np.arange(2 * N))
    result = warmed(block, kernel=kernel)
    kernel.new_calls()
    for number in range(N, N + 10):
        result.push(frame(block, number))
        images(result, XY, XZ)
    assert kernel.new_calls() == [2] * 20
    images(result, XY, XZ)
    assert kernel.new_calls() == []


def test_a_stage_that_does_not_keep_its_steps_costs_only_the_neighbours_more():
    angles = STEP * (np.arange(2 * N) + RNG.uniform(-0.1, 0.1, 2 * N))
    kernel, block = CountingKernel(), scan(angles)
    result = warmed(block, kernel=kernel, grids=(XY,))
    kernel.new_calls()
    for number in range(N, N + 10):
        result.push(frame(block, number))
        images(result, XY)
    # The newest, the oldest, and two neighbours in their split.
    assert kernel.new_calls() == [4] * 10


def test_a_moved_slice_is_made_anew_and_the_others_are_not():
    kernel, block = CountingKernel(), scan(STEP * np.arange(2 * N))
    result = warmed(block, kernel=kernel)
    kernel.new_calls()
    result.push(frame(block, N))
    moved = XY.moved((0, 0, 1))
    images(result, moved, XZ)
    assert kernel.new_calls() == [2, N]
    for number in range(N + 1, N + 8):
        result.push(frame(block, number))
        images(result, moved, XZ)
    assert kernel.new_calls() == [2, N] + [2, 2] * 6
    assert_as_if_made_anew(result, block, range(8, N + 8), grids=(moved, XY))


def test_grids_asked_for_once_are_not_kept():
    kernel, block = CountingKernel(), scan(STEP * np.arange(N))
    result = warmed(block, kernel=kernel, grids=())
    slabs = [XY.moved((0, 0, n * 0.1)) for n in range(5)]
    for slab in slabs:
        images(result, slab)
    assert kernel.new_calls() == [N] * 5
    assert result.kept_voxels == 0


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(incremental, "KEPT_VOXELS", 3 * 24 * 28)
    result = warmed(scan(STEP * np.arange(N)), grids=tuple(XY.moved((0, 0, n * 0.1)) for n in range(8)))
    assert 0 < result.kept_voxels <= 3 * 24 * 28


def test_when_most_of_the_window_has_changed_everything_is_made_anew():
    kernel, block = CountingKernel(), scan(STEP * np.arange(2 * N))
    result = warmed(block, kernel=kernel, grids=(XY,))
    kernel.new_calls()
    for number in range(N, N + 13):
        result.push(frame(block, number))
    images(result, XY)
    assert kernel.new_calls() == [N]


@pytest.mark.parametrize("change", ["flats", "axis"])
def test_after_refiltering_everything_is_made_anew(change):
    kernel, block = CountingKernel(), scan(STEP * np.arange(2 * N))
    result = warmed(block, kernel=kernel, grids=(XY,))
    kernel.new_calls()
    if change == "flats":
        result.push(make_block("flat", np.full((1, CONE.n_v, CONE.n_u), 64_000)))
    else:
        result.set_axis_offset(0.3)
        before = images(result, XY)[0]
        assert kernel.new_calls() == [N]
    assert result.settle()
    after = images(result, XY)[0]
    assert kernel.new_calls() == [N]
    if change == "axis":
        # The fan weight follows the axis, a little.
        assert 0 < np.abs(after - before).max() < 2e-3 * np.abs(after).max()


def test_the_store_before_is_let_go_even_when_a_slice_is_never_asked_for_again():
    kernel = CountingKernel()
    result = warmed(scan(STEP * np.arange(N)), kernel=kernel, grids=(XY, XZ))
    store = kernel.store
    result.push(make_block("flat", np.full((1, CONE.n_v, CONE.n_u), 64_000)))
    assert result.settle()
    images(result, XY)
    gc.collect()
    assert store() is None


def test_images_that_were_handed_out_are_nobody_elses():
    block = scan(STEP * np.arange(2 * N))
    result = warmed(block)
    handed_out = images(result, XY)[0]
    before = handed_out.copy()
    result.push(frame(block, N))
    again = images(result, XY)[0]
    np.testing.assert_array_equal(handed_out, before)
    assert not np.array_equal(again, before)
    again[:] = 7
    assert not (images(result, XY)[0] == 7).any()


@pytest.mark.parametrize("come", [5, 25, 70])
def test_projections_that_come_while_a_slice_is_made_do_no_harm(come):
    block = scan(STEP * np.arange(4 * N))
    kernel = CountingKernel()
    result = warmed(block, kernel=kernel, grids=(XY,))
    result.push(frame(block, N))

    def push_more():
        for number in range(N + 1, N + 1 + come):
            result.push(frame(block, number))

    kernel.meanwhile = push_more
    images(result, XY)
    assert_as_if_made_anew(result, block, range(come + 1, come + 1 + N), grids=(XY,))


def test_any_threads_may_ask_while_another_pushes():
    block, result, ended = scan(STEP * np.arange(10 * N)), empty(), threading.Event()
    for number in range(N):
        result.push(frame(block, number))
    seen: list[dict[int, np.ndarray]] = [{}, {}, {}]
    came = threading.Condition()

    def read(images_by_last):
        while not ended.is_set():
            made = result.slices((XY, XZ))
            if made is not None:
                with came:
                    images_by_last[made.angles.last_id - 1000] = made.images[0]
                    came.notify_all()

    readers = [threading.Thread(target=read, args=(images_by_last,)) for images_by_last in seen]
    for reader in readers:
        reader.start()
    try:
        for number in range(N, 10 * N):
            result.push(frame(block, number))
            if number % 40 == 0:
                # Readers meet more than the end.
                with came:
                    assert came.wait_for(lambda last=number: any(last in images_by_last for images_by_last in seen), 30)
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    for images_by_last in seen:
        for last in sorted(images_by_last)[:: max(1, len(images_by_last) // 8)]:
            anew = empty()
            for number in range(last - N + 1, last + 1):
                anew.push(frame(block, number))
            expected = images(anew, XY)[0]
            np.testing.assert_allclose(images_by_last[last], expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert sum(map(len, seen)) > 8


class NothingToSum:
    """Give images of zeros in no time, so that threads meet in the bookkeeping."""

    def run(self, jobs, *, out=None):
        return np.zeros(jobs.result_shape, dtype=np.float32) if out is None else out


def test_threads_that_ask_for_many_grids_do_not_meet_in_the_bookkeeping(monkeypatch):
    monkeypatch.setattr(incremental, "REMEMBERED", 3)
    monkeypatch.setattr(incremental, "KEPT_VOXELS", 4 * 16)
    result = empty(kernel=NothingToSum())
    result.push(scan(STEP * np.arange(N), noise=False))
    grids = [Grid.slice_xy(z_mm=0.01 * number, voxel_mm=0.1, shape=(4, 4)) for number in range(20)]
    together = threading.Barrier(6)

    def ask(seed):
        chosen = np.random.default_rng(seed).integers(0, len(grids), size=(300, 3))
        together.wait(30)
        for numbers in chosen:
            assert result.slices(tuple(grids[number] for number in numbers)) is not None

    switches_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(6) as pool:
            for done in [pool.submit(ask, seed) for seed in range(6)]:
                done.result()
    finally:
        sys.setswitchinterval(switches_s)
    assert result.kept_voxels <= 4 * 16


def checks_in(caplog):
    """Return the differences that checks of slices have found."""
    return [record.args[0] for record in caplog.records if "was checked" in record.msg]


def test_now_and_then_a_full_pass_checks_and_finds_rounding_only(caplog):
    caplog.set_level(logging.DEBUG, incremental.__name__)
    block = scan(STEP * np.arange(2 * N))
    result = warmed(block, grids=(XY,))
    for turn in range(1, 2 * incremental.CHECK_WINDOWS + 2):
        for number in range(N):
            again = frame(block, number)
            result.push(
                make_block("projection", again.counts, angles_rad=again.angles_rad, acquisition=[turn * N + number])
            )
            images(result, XY)
    differences = checks_in(caplog)
    assert len(differences) == 2
    assert 0 < max(differences) < 2e-6
    assert [r for r in caplog.records if r.name == incremental.__name__ and r.levelno > logging.DEBUG] == []


def test_a_sum_that_has_gone_wrong_is_found_replaced_and_reported(caplog, monkeypatch):
    block = scan(STEP * np.arange(3 * N))
    kernel = CountingKernel()
    result = warmed(block, kernel=kernel, grids=(XY,))
    monkeypatch.setattr(incremental, "CHECK_WINDOWS", 1)
    spoilt = kernel.run

    def spoil(jobs, *, out=None):
        made = spoilt(jobs, out=out)
        if out is not None:
            made += 1e-4
        return made

    monkeypatch.setattr(kernel, "run", spoil)
    with caplog.at_level(logging.DEBUG, incremental.__name__):
        for number in range(N, 2 * N):
            result.push(frame(block, number))
            images(result, XY)
    (difference,) = checks_in(caplog)
    assert difference > 1e-2
    assert "a slice that was kept up to date had come to differ" in caplog.text
    assert_as_if_made_anew(result, block, range(N, 2 * N), grids=(XY,))
