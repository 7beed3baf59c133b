"""The GPU kernel on a GPU; skipped where there is none. What a machine without one can check is in tests/unit."""

import threading

import numpy as np
import pytest
from backprojection_jobs import (
    CONE,
    OUTSIDE,
    PARALLEL,
    PATCHES,
    SLABS,
    SLICE,
    UPRIGHT,
    N,
    assert_right,
    jobs_on,
    noise_slots,
)
from cuda_on_host import host_kernel
from noise_run import flats, frames

from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.kernels import choose
from bluesky_jit.tomo.kernels.astra import AstraKernel
from bluesky_jit.tomo.kernels.cuda import CudaKernel, why_not
from bluesky_jit.tomo.kernels.cuda_device import CupyDevice
from bluesky_jit.tomo.live import FilteredBackprojection

reason = why_not()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(reason), reason=reason)]

PARITY = 3e-4
ROUNDING = 1e-5
TEXTURE = 1 / 256
"""ASTRA reads through textures, whose weights between two pixels have nine bits, one of them the sign."""
GRIDS = {"slice": SLICE, "upright": UPRIGHT, "slabs": SLABS, "patches": PATCHES, "partly outside": OUTSIDE}
SLOT_BYTES = (CONE.n_v + 2) * (CONE.n_u + 2) * 2


class SmallDevice(CupyDevice):
    """Pretend to have this much memory free."""

    memory_bytes = 2**40
    launches = 0

    def free_bytes(self):
        return self.memory_bytes

    def launch(self, n_blocks, block, arguments):
        self.launches += 1
        super().launch(n_blocks, block, arguments)


@pytest.fixture(scope="module")
def kernel():
    return CudaKernel()


@pytest.mark.parametrize("geometry", [CONE, PARALLEL], ids=lambda geometry: geometry.kind)
@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS.keys())
@pytest.mark.parametrize("n_splits", [1, 2, 5])
def test_the_gpu_gives_the_references_answer(kernel, geometry, grids, n_splits):
    jobs = jobs_on(noise_slots(geometry), grids, geometry=geometry, n_splits=n_splits)
    result = kernel.run(jobs)
    assert_right(result, jobs, part=PARITY)
    # The same source, but for fused multiplications.
    host = host_kernel().run(jobs)
    np.testing.assert_allclose(result, host, rtol=0, atol=ROUNDING * np.abs(host).max())


def test_the_same_job_gives_the_same_bits(kernel):
    jobs = jobs_on(noise_slots(), SLABS, n_splits=2)
    np.testing.assert_array_equal(kernel.run(jobs), kernel.run(jobs))


def test_images_grow_and_shrink_in_place(kernel):
    slots = noise_slots()
    image = kernel.run(jobs_on(slots, slots=range(5)))
    kernel.run(jobs_on(slots, slots=range(5, N)), out=image)
    assert_right(image, jobs_on(slots), part=PARITY)


def test_only_slots_that_are_new_are_uploaded():
    kernel, slots = CudaKernel(), noise_slots()
    kernel.run(jobs_on(slots, slots=[1, 2, 3]))
    kernel.run(jobs_on(slots, slots=[2, 3, 4]))
    assert kernel.uploaded == 4
    slots.values[3] = noise_slots(seed=3).values[3]
    slots.versions[3] += 1
    jobs = jobs_on(slots, slots=[2, 3, 4])
    assert_right(kernel.run(jobs), jobs, part=PARITY)
    assert kernel.uploaded == 5


def test_slices_stay_right_over_several_turns():
    per_turn, n_turns = 24, 4
    live = FilteredBackprojection(CONE, n_projections=per_turn, kernel=CudaKernel())
    other = FilteredBackprojection(CONE, n_projections=per_turn, kernel="numba")
    for reconstruction in (live, other):
        reconstruction.push(flats(CONE))
    for number in range(per_turn * n_turns):
        block = frames(CONE, range(number, number + 1), per_turn=per_turn)
        live.push(block)
        other.push(block)
        if number >= per_turn:
            live.slices(SLICE)
    ours, theirs = live.slices(SLICE), other.slices(SLICE)
    assert ours is not None
    assert theirs is not None
    np.testing.assert_allclose(ours.images[0], theirs.images[0], rtol=0, atol=PARITY * np.abs(theirs.images[0]).max())


@pytest.mark.parametrize(("result_bytes", "n_launches"), [(20_000, 2), (5_000, 9), (1_500, 30)])
def test_results_that_do_not_fit_the_device_are_made_in_pieces(result_bytes, n_launches):
    jobs = jobs_on(noise_slots(), SLABS, slots=[0, 1], n_splits=2)
    device = SmallDevice()
    kernel = CudaKernel(device)
    kernel.run(jobs_on(jobs.projections))
    device.memory_bytes, device.launches = 2 * result_bytes, 0
    assert_right(kernel.run(jobs), jobs, part=PARITY)
    assert device.launches == n_launches


def test_a_window_that_does_not_fit_the_device_passes_through_it():
    device = SmallDevice()
    device.memory_bytes = 8 * SLOT_BYTES
    jobs = jobs_on(noise_slots(), n_splits=2)
    assert_right(CudaKernel(device).run(jobs), jobs, part=PARITY)
    assert device.launches == 3


def test_a_volume_of_many_blocks_is_one_launch(kernel):
    # More planes than the 65,535 blocks that a launch may have along y or z.
    grids = tuple(Grid.slice_xy(z_mm=0.001 * n, voxel_mm=0.5, shape=(2, 2)) for n in range(70_000))
    slots = noise_slots()
    result = kernel.run(jobs_on(slots, grids, slots=[0]))
    some = slice(69_990, 70_000)
    assert_right(result[some], jobs_on(slots, grids[some], slots=[0]), part=PARITY)


def test_threads_share_a_kernel(kernel):
    tasks = [jobs_on(noise_slots(seed=n % 2), SLABS, n_splits=n + 1) for n in range(4)]
    results = {}

    def work(n):
        for _ in range(10):
            results[n] = kernel.run(tasks[n])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, jobs in enumerate(tasks):
        assert_right(results[n], jobs, part=PARITY)


def test_the_gpu_is_chosen_where_there_is_one(caplog):
    with caplog.at_level("INFO", logger="bluesky_jit.tomo.kernels"):
        chosen = choose("auto")
    assert isinstance(chosen, CudaKernel)
    assert chosen.device_name in caplog.text


@pytest.mark.parametrize("geometry", [CONE, PARALLEL], ids=lambda geometry: geometry.kind)
@pytest.mark.parametrize("grids", [SLICE, UPRIGHT, SLABS], ids=["slice", "upright", "slabs"])
def test_astra_agrees_on_any_grid(geometry, grids):
    pytest.importorskip("astra")
    kernel = AstraKernel()
    if not kernel.on_gpu:
        pytest.skip("ASTRA finds no GPU")
    jobs = jobs_on(noise_slots(geometry), grids, geometry=geometry, n_splits=2)
    assert_right(kernel.run(jobs), jobs, part=TEXTURE)
