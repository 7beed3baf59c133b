"""What only the CPU's kernel has: tasks, lines for parallel beam, addresses."""

from dataclasses import replace

import numpy as np
import pytest
from backprojection_jobs import CONE, PARALLEL, PATCHES, SLICE, jobs_on, noise_slots

from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Priority, ReferenceKernel, Slots
from bluesky_jit.tomo.kernels import numba as cpu
from bluesky_jit.tomo.kernels.numba import NumbaKernel

LARGE = (Grid.slice_xy(voxel_mm=0.05, shape=(300, 400)),)


class Recorder:
    """Run tasks at once, and keep how many there were in each call and how urgent."""

    def __init__(self):
        self.calls = []

    def run(self, tasks, priority):
        self.calls.append((len(tasks), priority))
        for task in tasks:
            task()


@pytest.fixture
def pool():
    return Recorder()


@pytest.mark.parametrize("geometry", [CONE, PARALLEL], ids=lambda geometry: geometry.kind)
def test_a_large_job_is_cut_into_tasks_of_about_a_millisecond(pool, geometry):
    NumbaKernel(pool).run(jobs_on(noise_slots(geometry), LARGE, geometry=geometry))
    # 300 × 400 voxels × 11 projections make 1.3 million updates.
    assert pool.calls == [(2, Priority.SHOWN)]


@pytest.mark.parametrize("geometry", [CONE, PARALLEL], ids=lambda geometry: geometry.kind)
def test_the_answer_does_not_depend_on_how_the_tasks_fall(pool, monkeypatch, geometry):
    jobs = jobs_on(noise_slots(geometry), LARGE, geometry=geometry, n_splits=2)
    whole = NumbaKernel().run(jobs)
    monkeypatch.setattr(cpu, "TASK_UPDATES", 30_000)
    np.testing.assert_array_equal(NumbaKernel(pool).run(jobs), whole)
    assert pool.calls[0][0] > 40


def test_a_small_job_does_not_go_through_the_pool(pool):
    NumbaKernel(pool).run(jobs_on(noise_slots(), SLICE))
    assert pool.calls == []


def test_the_pool_is_told_how_urgent_a_job_is(pool, monkeypatch):
    monkeypatch.setattr(cpu, "TASK_UPDATES", 5_000)
    jobs = jobs_on(noise_slots(), PATCHES)
    for priority in Priority:
        NumbaKernel(pool).run(replace(jobs, priority=priority))
    assert pool.calls == [(5, priority) for priority in Priority]


@pytest.mark.parametrize("pieces", [1, 3, 11])
def test_lines_take_no_more_memory_than_they_may(pool, monkeypatch, pieces):
    monkeypatch.setattr(cpu, "LINES_BYTES", 4 * (PARALLEL.n_u + 2) * -(-11 // pieces))
    monkeypatch.setattr(cpu, "TASK_UPDATES", 10_000)
    jobs = jobs_on(noise_slots(PARALLEL), LARGE, geometry=PARALLEL)
    result, expected = NumbaKernel(pool).run(jobs), ReferenceKernel().run(jobs)
    assert len(pool.calls) == pieces
    np.testing.assert_allclose(result, expected, rtol=0, atol=3e-4 * np.abs(expected).max())


def test_a_store_of_more_than_two_to_the_31_pixels():
    small = noise_slots()
    n = 2**31 // small.values[0].size + 11
    # Zeros that nobody touches take no memory.
    values = np.zeros((n, *small.values.shape[1:]), dtype=np.int16)
    values[-11:] = small.values
    scales = np.ones(n, dtype=np.float32)
    scales[-11:] = small.scales
    near = jobs_on(small)
    far = replace(near, projections=Slots(values=values, scales=scales), slots=near.slots + n - 11)
    np.testing.assert_array_equal(NumbaKernel().run(far), NumbaKernel().run(near))
