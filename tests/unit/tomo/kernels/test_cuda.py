"""The GPU kernel, its source compiled for the host: what it is given, what it keeps, how it fits its memory."""

import sys
import threading

import numpy as np
import pytest
from backprojection_jobs import CONE, PARALLEL, SLABS, SLICE, N, assert_right, jobs_on, noise_slots
from cuda_on_host import HostDevice
from noise_run import flats, frames

from bluesky_jit.tomo.geometry import ConeGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.kernels import cuda
from bluesky_jit.tomo.kernels.cuda import CudaKernel, why_not
from bluesky_jit.tomo.kernels.cuda_launch import Launch, pieces
from bluesky_jit.tomo.live import FilteredBackprojection

SLOT_BYTES = (CONE.n_v + 2) * (CONE.n_u + 2) * 2
ROUNDING = 2e-5
"""Part of the largest value that float32 may be off on a detector of 90 pixels."""


def rewrite(projections, slot, *, seed=3):
    projections.values[slot] = noise_slots(seed=seed).values[slot]
    projections.versions[slot] += 1


def test_a_launch_has_a_thread_for_every_voxel_and_split():
    launch = Launch.of(jobs_on(noise_slots(), SLABS, n_splits=2))
    assert launch.rays.shape == (3, N, 3, 4)
    assert launch.rays.dtype == launch.scales.dtype == np.float32
    assert launch.slots.tolist() == [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9]
    assert launch.starts.tolist() == [0, 6, 11]
    # Three grids, two splits, five planes of 12×20.
    assert launch.block == (20, 12)
    assert launch.n_blocks == 3 * 2 * 5
    assert Launch.of(jobs_on(noise_slots(), SLICE)).block == (32, 8)
    assert Launch.of(jobs_on(noise_slots(), SLICE)).n_blocks == 5 * 2


def test_a_split_without_projections_is_empty():
    jobs = jobs_on(noise_slots(), slots=[0, 2, 4], n_splits=2)
    result = CudaKernel(HostDevice()).run(jobs)
    assert_right(result, jobs, part=ROUNDING)
    assert not result[:, 1].any()


def test_positions_stay_good_on_a_wide_detector():
    wide = ConeGeometry(n_u=2560, n_v=12, pixel_mm=0.05, source_axis_mm=100, source_detector_mm=150)
    grids = (Grid.slice_xy(voxel_mm=wide.voxel_mm, shape=(24, 2560)),)
    jobs = jobs_on(noise_slots(wide), grids, geometry=wide)
    # Noise from pixel to pixel is the worst there is: a position off by 1e-4 pixel changes its value by about as much.
    assert_right(CudaKernel(HostDevice()).run(jobs), jobs, part=1.5e-4)


def test_images_grow_and_shrink_in_place():
    kernel, projections = CudaKernel(HostDevice()), noise_slots()
    image = kernel.run(jobs_on(projections, slots=range(5)))
    added = kernel.run(jobs_on(projections, slots=range(5, N)), out=image)
    assert added is image
    assert_right(image, jobs_on(projections), part=ROUNDING)


def test_a_slot_is_uploaded_once():
    kernel, projections = CudaKernel(HostDevice()), noise_slots()
    kernel.run(jobs_on(projections, slots=[1, 2, 3]))
    assert kernel.uploaded == 3
    kernel.run(jobs_on(projections, slots=[2, 3, 4, 5]))
    assert kernel.uploaded == 5


def test_a_slot_that_was_written_again_is_uploaded_again():
    kernel, projections = CudaKernel(HostDevice()), noise_slots()
    kernel.run(jobs_on(projections))
    rewrite(projections, 4)
    jobs = jobs_on(projections)
    assert_right(kernel.run(jobs), jobs, part=ROUNDING)
    assert kernel.uploaded == N + 1


def test_a_slot_that_is_written_during_its_upload_is_uploaded_again():
    class Slow(HostDevice):
        def write(self, array, index, values):
            super().write(array, index, values)
            if index == 4 and projections.versions[4] == 0:
                rewrite(projections, 4)

    projections = noise_slots()
    kernel = CudaKernel(Slow())
    kernel.run(jobs_on(projections))
    jobs = jobs_on(projections)
    assert_right(kernel.run(jobs), jobs, part=ROUNDING)


def test_a_store_that_nobody_counts_is_uploaded_each_time():
    kernel, projections = CudaKernel(HostDevice()), noise_slots(counted=False)
    kernel.run(jobs_on(projections))
    projections.values[4] = noise_slots(seed=3).values[4]
    jobs = jobs_on(projections)
    assert_right(kernel.run(jobs), jobs, part=ROUNDING)


def test_another_store_takes_the_place_of_the_first():
    kernel, first, second = CudaKernel(HostDevice()), noise_slots(), noise_slots(seed=3)
    for projections in (first, second, first):
        jobs = jobs_on(projections)
        assert_right(kernel.run(jobs), jobs, part=ROUNDING)


def test_a_store_that_is_gone_is_not_taken_for_the_next_one():
    kernel = CudaKernel(HostDevice())
    for seed in range(5):
        jobs = jobs_on(noise_slots(seed=seed))
        assert_right(kernel.run(jobs), jobs, part=ROUNDING)


@pytest.mark.parametrize("most_bytes", [10**9, 12_000, 8_000, 2_000, 1_000, 1])
def test_pieces_cover_every_voxel_once(most_bytes):
    jobs = jobs_on(noise_slots(), SLABS, slots=[0, 1], n_splits=2)
    covered = np.zeros(jobs.result_shape)
    for piece, where in pieces(jobs, most_bytes):
        assert piece.result_shape == covered[where].shape
        covered[where] += 1
        for grid, whole in zip(piece.grids, jobs.grids[where[0]], strict=True):
            assert (grid.z_step, grid.y_step, grid.x_step) == (whole.z_step, whole.y_step, whole.x_step)
    assert (covered == 1).all()


@pytest.mark.parametrize(
    ("result_bytes", "n_launches"),
    [
        pytest.param(3 * 10_000, 1, id="all at once"),
        pytest.param(2 * 10_000, 2, id="two volumes, then one"),
        pytest.param(5_000, 9, id="slabs of two planes"),
        pytest.param(1_500, 30, id="strips of eight rows"),
    ],
)
def test_results_that_do_not_fit_the_device_are_made_in_pieces(result_bytes, n_launches):
    jobs = jobs_on(noise_slots(), SLABS, slots=[0, 1], n_splits=2)
    device = HostDevice()
    kernel = CudaKernel(device)
    kernel.run(jobs_on(jobs.projections))
    # The window's copy is there; half of what is free now is for a result.
    device.memory_bytes, device.launches, device.largest = 2 * result_bytes, 0, 0
    assert_right(kernel.run(jobs), jobs, part=ROUNDING)
    assert device.launches == n_launches
    assert device.largest <= result_bytes


def test_a_window_that_does_not_fit_the_device_passes_through_it():
    jobs = jobs_on(noise_slots(), n_splits=2)
    device = HostDevice(memory_bytes=8 * SLOT_BYTES)
    assert_right(CudaKernel(device).run(jobs), jobs, part=ROUNDING)
    assert device.largest <= 4 * SLOT_BYTES
    assert device.launches == 3


def test_a_gpu_whose_memory_others_have_taken_says_so_and_works_again_later():
    class Full(HostDevice):
        full = True

        def zeros(self, shape, dtype):
            if self.full:
                raise MemoryError("out of memory allocating 4 bytes")
            return super().zeros(shape, dtype)

    device, jobs = Full(), jobs_on(noise_slots())
    kernel = CudaKernel(device)
    with pytest.raises(MemoryError, match=r"memory is full \(out of memory allocating 4 bytes\): end what else"):
        kernel.run(jobs)
    device.full = False
    assert_right(kernel.run(jobs), jobs, part=ROUNDING)


def test_threads_share_a_kernel():
    kernel = CudaKernel(HostDevice())
    tasks = [jobs_on(noise_slots(seed=n % 2), SLABS, n_splits=n + 1) for n in range(4)]
    results = [np.empty(0)] * 4

    def work(n):
        for _ in range(5):
            results[n] = kernel.run(tasks[n])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result, jobs in zip(results, tasks, strict=True):
        assert_right(result, jobs, part=ROUNDING)


def test_live_slices_stay_right_over_several_turns_and_each_projection_is_uploaded_once():
    per_turn, n_turns = 24, 3
    kernel = CudaKernel(HostDevice())
    live = FilteredBackprojection(CONE, n_projections=per_turn, kernel=kernel)
    other = FilteredBackprojection(CONE, n_projections=per_turn, kernel="numba")
    for reconstruction in (live, other):
        reconstruction.push(flats(CONE))
    for number in range(per_turn * n_turns):
        block = frames(CONE, range(number, number + 1), per_turn=per_turn)
        live.push(block)
        other.push(block)
        if number + 1 >= per_turn:
            live.slices(SLICE)
    ours, theirs = live.slices(SLICE), other.slices(SLICE)
    assert ours is not None
    assert theirs is not None
    largest = np.abs(theirs.images[0]).max()
    np.testing.assert_allclose(ours.images[0], theirs.images[0], rtol=0, atol=1e-4 * largest)
    assert kernel.uploaded == per_turn * n_turns


def test_pairs_of_time_frames_are_those_of_the_cpu():
    per_turn = 24
    ours, theirs = (
        FilteredBackprojection(CONE, n_projections=per_turn, frames=3, frame_spacing=4, kernel=kernel)
        for kernel in (CudaKernel(HostDevice()), "numba")
    )
    for reconstruction in (ours, theirs):
        reconstruction.push(flats(CONE))
        reconstruction.push(frames(CONE, range(2 * per_turn), per_turn=per_turn))
    made, expected = ours.pairs(SLICE), theirs.pairs(SLICE)
    assert made is not None
    assert expected is not None
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_a_parallel_beam_needs_no_kernel_of_its_own():
    jobs = jobs_on(noise_slots(PARALLEL), SLABS, geometry=PARALLEL)
    assert_right(CudaKernel(HostDevice()).run(jobs), jobs, part=ROUNDING)


def test_a_machine_without_a_driver_says_so(monkeypatch):
    monkeypatch.setattr(cuda, "DRIVER", "libno-such-driver.so.1")
    assert why_not() == "no NVIDIA driver on this machine"


class Driver:
    """Answer as an NVIDIA driver does, with a GPU or without."""

    def __init__(self, code):
        self.code = code

    def cuInit(self, flags):
        return self.code

    def cuDriverGetVersion(self, version):
        version._obj.value = 12_040
        return 0


def test_a_driver_without_a_gpu_says_so(monkeypatch):
    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda name: Driver(100))
    assert why_not().startswith("the NVIDIA driver finds no GPU that it can use (error 100 of cuInit)")


def test_a_gpu_without_cupy_names_the_extra_that_fits_the_driver(monkeypatch):
    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda name: Driver(0))
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert why_not().endswith("pip install 'bluesky-jit[cuda12]'")


@pytest.mark.parametrize("error", [RuntimeError("cudaErrorNoDevice"), OSError("libnvrtc"), ValueError("odd")])
def test_whatever_a_gpu_raises_is_a_reason(monkeypatch, error):
    def broken():
        raise error

    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda name: Driver(0))
    monkeypatch.setattr(cuda, "CupyDevice", broken)
    assert str(error) in why_not()


def test_a_gpu_that_computes_is_fine_and_one_that_miscomputes_is_not(monkeypatch):
    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda name: Driver(0))
    monkeypatch.setattr(cuda, "CupyDevice", HostDevice)
    assert why_not() == ""
    monkeypatch.setattr(HostDevice, "launch", lambda *arguments: None)
    assert why_not() == "the GPU backprojects a voxel of 12.5 to 0.0"
