"""Every kernel gives the reference's answer, whatever it is asked.

A new kernel registers itself in KERNELS; what only the CPU's loops could get wrong is in test_numba.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from backprojection_jobs import CONE, OUTSIDE, PARALLEL, PATCHES, SLABS, SLICE, UPRIGHT, jobs_on, noise_slots
from cuda_on_host import host_kernel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_geometry import angle_lists, between, geometries, grids

from bluesky_jit.session.workers import Workers
from bluesky_jit.tomo.geometry import ConeGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Jobs, Kernel, ReferenceKernel
from bluesky_jit.tomo.kernels import CANDIDATES, choose
from bluesky_jit.tomo.kernels import numba as cpu

TOLERANCE = 3e-4
"""Part of the largest value that a kernel may be off; slots of white noise forgive the least."""
AVERAGED = 0.02
"""ASTRA's CPU model averages over a ninth of a pixel where the reference takes points."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Name a kernel, make it (skipping the test where it cannot run), and say what it is asked and how near it is.

    asked: "anything", or "horizontal slices of a parallel beam".
    """

    name: str
    make: Callable[[], Kernel]
    tolerance: float = TOLERANCE
    asked: str = "anything"


class Shuffled:
    """Run tasks in an order of their own, to show that none needs another."""

    def run(self, tasks, priority):
        for n in np.random.default_rng(len(tasks)).permutation(len(tasks)):
            tasks[n]()


@cache
def pool() -> Workers:
    return Workers(3)


@pytest.fixture(autouse=True, scope="module")
def closed_pool():
    yield
    pool().close()


def cuda() -> Kernel:
    from bluesky_jit.tomo.kernels.cuda import CudaKernel, why_not

    reason = why_not()
    if reason:
        pytest.skip(reason)
    return CudaKernel()


def astra() -> Kernel:
    pytest.importorskip("astra", reason="astra-toolbox is not installed")
    from bluesky_jit.tomo.kernels.astra import AstraKernel

    return AstraKernel()


KERNELS = (
    Entry(name="reference", make=ReferenceKernel),
    Entry(name="numba", make=cache(lambda: choose("numba"))),
    Entry(name="numba-pooled", make=cache(lambda: choose("numba", pool=pool()))),
    Entry(name="numba-shuffled", make=cache(lambda: choose("numba", pool=Shuffled()))),
    Entry(name="cuda-on-host", make=cache(host_kernel)),
    Entry(name="cuda", make=cuda),
    Entry(name="astra", make=astra, tolerance=AVERAGED, asked="horizontal slices of a parallel beam"),
)
ANY = [entry for entry in KERNELS if entry.asked == "anything"]


def each(entries):
    return pytest.mark.parametrize("entry", entries, ids=[entry.name for entry in entries])


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch):
    """Cut even small jobs into many tasks."""
    monkeypatch.setattr(cpu, "TASK_UPDATES", 5_000)
    monkeypatch.setattr(cpu, "LINES_BYTES", 3_000)


def assert_parity(entry: Entry, jobs: Jobs, *, tolerance: float | None = None) -> None:
    expected, result = ReferenceKernel().run(jobs), entry.make().run(jobs)
    assert result.dtype == np.float32
    assert result.shape == expected.shape
    largest = np.abs(expected).max(initial=0.0)
    np.testing.assert_allclose(result, expected, rtol=0, atol=(tolerance or entry.tolerance) * largest)


TURNED = Grid.centred(centre=(0, 0, 0), x_axis=(1, 2, 0), y_axis=(-2, 1, 0), voxel_mm=0.2, shape=(4, 33, 40))
GRIDS = {
    "axial": (Grid.slice_xy(z_mm=0.5, voxel_mm=0.15, shape=(70, 90)),),
    "upright": UPRIGHT,
    "oblique": (
        Grid.centred(centre=(0.5, 1, 0), x_axis=(1, 0.3, 0.2), y_axis=(-0.4, 1, 0.7), voxel_mm=0.13, shape=(1, 67, 65)),
    ),
    "slabs": SLABS,
    "horizontal slab": (
        Grid.centred(centre=(0, 0, 0), x_axis=(1, 2, 0), y_axis=(-2, 1, 0), voxel_mm=0.2, shape=(4, 33, 40)),
    ),
    "volume": (Grid.volume(voxel_mm=0.5, shape=(12, 14, 16)),),
    "partly outside the field of view": OUTSIDE,
    "wholly outside": (Grid.slice_xy(z_mm=40, voxel_mm=0.1, shape=(8, 8)),),
    "one point": (Grid.slice_xy(voxel_mm=1, shape=(1, 1)),),
    "one row": (Grid.slice_xy(voxel_mm=0.1, shape=(1, 130)),),
    "one column": (Grid.slice_xy(voxel_mm=0.1, shape=(130, 1)),),
    "patches": PATCHES,
    "no grids": (),
}


@each(ANY)
@pytest.mark.parametrize("geometry", [CONE, PARALLEL], ids=lambda geometry: geometry.kind)
@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS.keys())
@pytest.mark.parametrize("n_splits", [1, 3])
def test_any_grid_and_every_split_in_one_pass(entry, geometry, grids, n_splits):
    assert_parity(entry, jobs_on(noise_slots(geometry), grids, geometry=geometry, n_splits=n_splits))


@each(KERNELS)
@pytest.mark.parametrize("grids", [SLICE, OUTSIDE, GRIDS["horizontal slab"]], ids=["slice", "partly outside", "slab"])
def test_horizontal_slices_of_a_parallel_beam(entry, grids):
    assert_parity(entry, jobs_on(noise_slots(PARALLEL), grids, geometry=PARALLEL, n_splits=2))


@each(ANY)
@given(data=st.data())
@settings(
    max_examples=int(os.environ.get("PARITY_EXAMPLES", "40")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_set_up_and_window(entry, data):
    geometry = data.draw(geometries())
    angles = data.draw(angle_lists())
    n_splits = data.draw(st.integers(1, 4))
    first = data.draw(grids(geometry))
    moves = data.draw(st.lists(st.tuples(between(-1, 1), between(-1, 1), between(-1, 1)), max_size=2))
    batch = (first, *(first.moved(tuple(geometry.radius_mm * value for value in move)) for move in moves))
    projections = noise_slots(geometry, len(angles) + 2, seed=data.draw(st.integers(0, 5)))
    chance = np.random.default_rng(data.draw(st.integers(0, 5)))
    jobs = Jobs(
        projections=projections,
        matrices=geometry.matrices(angles),
        slots=chance.permutation(len(angles) + 2)[: len(angles)],
        scales=chance.uniform(-1, 1, len(angles)) * 10.0 ** chance.integers(-3, 4),
        splits=chance.integers(0, n_splits, len(angles)),
        n_splits=n_splits,
        grids=batch,
    )
    # Near the source a pixel is crossed in a hair's breadth, and single precision tells.
    depths = [np.tensordot(grid.points(), m[2, :3], axes=1) + m[2, 3] for grid in batch for m in jobs.matrices]
    if all((depth > 0.1).all() for depth in depths):
        assert_parity(entry, jobs)
    else:
        assert np.isfinite(entry.make().run(jobs)).all()


@each(ANY)
def test_results_are_added_to_what_is_there(entry):
    jobs = jobs_on(noise_slots(), SLABS, n_splits=2)
    out = np.full(jobs.result_shape, 2, dtype=np.float32)
    result = entry.make().run(jobs, out=out)
    assert result is out
    np.testing.assert_allclose(out - 2, ReferenceKernel().run(jobs), rtol=0, atol=5e-4)


@each(ANY)
@pytest.mark.parametrize("geometry", [CONE, PARALLEL], ids=lambda geometry: geometry.kind)
def test_adding_and_then_subtracting_projections_leaves_nothing(entry, geometry):
    kernel, jobs = entry.make(), jobs_on(noise_slots(geometry), geometry=geometry)
    image = kernel.run(jobs)
    largest = np.abs(image).max()
    kernel.run(replace(jobs, scales=-jobs.scales), out=image)
    assert np.abs(image).max() < 1e-6 * largest


@each(ANY)
def test_slots_of_any_scale(entry):
    projections = noise_slots()
    scales = np.where(np.arange(len(projections.scales)) % 2, 1e6, 1e-6).astype(np.float32)
    jobs = jobs_on(replace(projections, scales=scales), GRIDS["oblique"])
    assert_parity(entry, jobs)
    # Those of small scale alone, which the others drown out above.
    assert_parity(entry, jobs_on(replace(projections, scales=scales), GRIDS["oblique"], slots=range(0, 11, 2)))


@each(ANY)
def test_a_grid_around_and_behind_the_source_stays_finite(entry):
    grids = (Grid.centred(centre=(0, -58, 0), x_axis=(1, 0, 0), y_axis=(0, 1, 0), voxel_mm=1, shape=(1, 40, 30)),)
    jobs = jobs_on(noise_slots(), grids)
    jobs = replace(jobs, matrices=CONE.matrices(np.zeros(len(jobs.slots))))
    result, expected = entry.make().run(jobs), ReferenceKernel().run(jobs)
    assert np.isfinite(result).all()
    in_front = grids[0].points()[..., 1] > -55
    largest = np.abs(expected[..., in_front]).max()
    np.testing.assert_allclose(result[..., in_front], expected[..., in_front], rtol=0, atol=entry.tolerance * largest)
    behind = grids[0].points()[..., 1] < -60
    assert not result[..., behind].any()


@each(ANY)
def test_as_many_sums_as_seven_time_frames_take(entry):
    # Windows of seven frames have 13 parts, each with two splits.
    assert_parity(entry, jobs_on(noise_slots(), PATCHES, n_splits=26))


@each(ANY)
@pytest.mark.parametrize("n_splits", [1, 2])
def test_no_projections_give_zeros(entry, n_splits):
    result = entry.make().run(jobs_on(noise_slots(), slots=[], n_splits=n_splits))
    assert result.shape == (1, n_splits, 1, 40, 50)
    assert not result.any()


@each(ANY)
def test_more_than_a_thousand_projections(entry):
    small = ConeGeometry(n_u=12, n_v=9, pixel_mm=0.4, source_axis_mm=60, source_detector_mm=150)
    grids = (Grid.slice_xy(voxel_mm=0.2, shape=(9, 11)),)
    assert_parity(entry, jobs_on(noise_slots(small, 1500), grids, slots=range(1500), geometry=small, n_splits=2))


@each(ANY)
def test_perturbing_one_projection_leaves_every_other_split_bit_identical(entry):
    kernel, projections = entry.make(), noise_slots()
    before = kernel.run(jobs_on(projections, PATCHES, n_splits=3))
    projections.values[4, 1:-1, 1:-1] //= 2
    projections.versions[4] += 1
    after = kernel.run(jobs_on(projections, PATCHES, n_splits=3))
    assert not np.array_equal(after[:, 4 % 3], before[:, 4 % 3])
    for split in (0, 2):
        np.testing.assert_array_equal(after[:, split], before[:, split])


@each(ANY)
def test_a_table_that_cannot_be_right_is_refused(entry):
    kernel, jobs = entry.make(), jobs_on(noise_slots())
    with pytest.raises(ValueError, match="slots run from 0 to 11 and there are 11 slots in the store"):
        kernel.run(replace(jobs, slots=np.append(jobs.slots[:-1], 11)))
    with pytest.raises(ValueError, match="slots run from -1 to 9 and"):
        kernel.run(replace(jobs, slots=np.append(jobs.slots[:-1], -1)))
    with pytest.raises(ValueError, match="splits run from 0 to 1 and there are 1 splits: give numbers from 0 to 0"):
        kernel.run(replace(jobs, splits=jobs.slots % 2))
    with pytest.raises(ValueError, match="columns of a job table are of different lengths"):
        kernel.run(replace(jobs, scales=jobs.scales[:-1]))
    with pytest.raises(ValueError, match=r"grids of shapes .* are in one job table: give one table for each shape"):
        kernel.run(replace(jobs, grids=SLICE + OUTSIDE))
    shape = jobs.result_shape
    turned = np.zeros((*shape[:3], shape[4], shape[3]), dtype=np.float32).swapaxes(3, 4)
    for out in (np.zeros((*shape, 1), dtype=np.float32), np.zeros(shape), turned):
        with pytest.raises(ValueError, match=r"out is .*: give contiguous float32 \(1, 1, 1, 40, 50\)"):
            kernel.run(jobs, out=out)


def test_every_kernel_is_in_the_suite():
    assert {candidate.name for candidate in CANDIDATES} <= {entry.name for entry in KERNELS}
