"""The GPU kernel: a batch of grids in one launch, from a copy of the window that stays on the device.

`backproject.cu` is what the device runs, `cuda_launch.py` what it is given, `cuda_device.py` the device itself.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from bluesky_jit.tomo.geometry import ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import MIN_DEPTH, Jobs, Slots, result_for
from bluesky_jit.tomo.kernels.cuda_device import CupyDevice, Device
from bluesky_jit.tomo.kernels.cuda_launch import Launch, pieces

DRIVER = "nvcuda" if sys.platform == "win32" else "libcuda.so.1"
CUDA_13 = 13_000
"""The driver's version, as it counts, from which on it runs programs made with CUDA 13."""
SHARE = 0.5
"""Part of the device's free memory that the window's copy may take, and of what is left then that a result may take:
the network trains on the same device."""


class SlotCopy:
    """Keep a store's slots on the device, and upload those alone that were written since."""

    def __init__(self, projections: Slots, device: Device) -> None:
        self._device = device
        self._source = weakref.ref(projections.values)
        self._versions = np.full(len(projections.values), -1, dtype=np.int64)
        self.values = device.zeros(projections.values.shape, np.int16)
        self.uploaded = 0
        """Slots uploaded so far."""

    def is_of(self, projections: Slots) -> bool:
        return self._source() is projections.values

    def update(self, projections: Slots, slots: np.ndarray) -> None:
        """Bring these slots, int64 (n,), up to date."""
        slots = np.unique(slots)
        # Read before the slots are: one that is written meanwhile gets a higher version, and is taken again.
        versions = np.full(len(slots), -1) if projections.versions is None else projections.versions[slots]
        stale = (versions < 0) | (versions != self._versions[slots])
        for slot, version in zip(slots[stale], versions[stale], strict=True):
            self._device.write(self.values, int(slot), projections.values[slot])
            self._versions[slot] = version
            self.uploaded += 1


class CudaKernel:
    """Backproject on a GPU; any threads may ask, and one job runs at a time."""

    def __init__(self, device: Device | None = None) -> None:
        """Take the present CUDA device, or one that is given."""
        self._device = CupyDevice() if device is None else device
        self._copy: SlotCopy | None = None
        self._lock = threading.Lock()

    @property
    def device_name(self) -> str:
        return self._device.name

    @property
    def uploaded(self) -> int:
        """Count the slots of the present store that were uploaded so far."""
        return self._copy.uploaded if self._copy is not None else 0

    def run(self, jobs: Jobs, *, out: np.ndarray | None = None) -> np.ndarray:
        result = result_for(jobs, out)
        if not len(jobs.slots) or not result.size:
            return result
        try:
            with self._lock:
                self._add(jobs, result)
        except MemoryError as error:
            raise MemoryError(
                f"the GPU's memory is full ({error}): end what else uses it, or set tomo.kernel to numba"
            ) from error
        return result

    def _add(self, jobs: Jobs, result: np.ndarray) -> None:
        copy = self._copy_of(jobs.projections)
        if copy is not None:
            copy.update(jobs.projections, jobs.slots)
            self._run_pieces(jobs, copy.values, result)
            return
        for part in self._portions(jobs):
            self._run_pieces(part, self._device.upload(part.projections.values), result)

    def _copy_of(self, projections: Slots) -> SlotCopy | None:
        """Return the copy of a store, made when it is new; None when the device cannot hold the store."""
        if self._copy is not None and self._copy.is_of(projections):
            return self._copy
        # Its memory is free before the next one's is asked for.
        self._copy = None
        if projections.values.nbytes <= SHARE * self._device.free_bytes():
            self._copy = SlotCopy(projections, self._device)
        return self._copy

    def _portions(self, jobs: Jobs) -> Iterator[Jobs]:
        """Cut a job table into projections that the device can hold, each with a small store of its own."""
        store = jobs.projections
        most = max(1, int(SHARE * self._device.free_bytes()) // store.values[0].nbytes)
        for start in range(0, len(jobs.slots), most):
            part = slice(start, start + most)
            slots = np.asarray(jobs.slots)[part]
            yield replace(
                jobs,
                projections=Slots(values=store.values[slots], scales=np.asarray(store.scales)[slots]),
                matrices=jobs.matrices[part],
                slots=np.arange(len(slots)),
                scales=jobs.scales[part],
                splits=jobs.splits[part],
            )

    def _run_pieces(self, jobs: Jobs, values: Any, result: np.ndarray) -> None:
        """Add one job table, whose slots are on the device, into the result."""
        device = self._device
        n, (_, rows, columns) = len(jobs.slots), jobs.projections.values.shape
        for piece, where in pieces(jobs, int(SHARE * device.free_bytes())):
            launch = Launch.of(piece)
            _, n_splits, nz, ny, nx = piece.result_shape
            total = device.zeros(piece.result_shape, np.float32)
            tables = (device.upload(table) for table in (launch.rays, launch.scales, launch.slots, launch.starts))
            sizes = (np.int32(size) for size in (n, n_splits, rows, columns, nz, ny, nx))
            device.launch(launch.n_blocks, launch.block, (values, *tables, total, *sizes, np.float32(MIN_DEPTH)))
            result[where] += device.download(total)


def why_not() -> str:
    """Say why backprojection cannot run on a GPU here, with the remedy; empty when it can. Never raises.

    The driver is asked first, since without one CuPy need not be loaded; last, one voxel is backprojected.
    """
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return "no NVIDIA driver on this machine"
    version = ctypes.c_int()
    code = driver.cuInit(0)
    if code != 0:
        return f"the NVIDIA driver finds no GPU that it can use (error {code} of cuInit): see what nvidia-smi says"
    driver.cuDriverGetVersion(ctypes.byref(version))
    extra = "cuda13" if version.value >= CUDA_13 else "cuda12"
    try:
        return _fails(CupyDevice())
    except ImportError as error:
        return f"CuPy cannot be loaded ({error}): pip install 'bluesky-jit[{extra}]'"
    except Exception as error:  # noqa: BLE001 - whatever a driver, a compiler or a device may raise, the CPU can do it
        return f"the GPU does not run the kernel: {type(error).__name__}: {error}"


def _fails(device: CupyDevice) -> str:
    """Backproject one voxel of a known value, and say so if another one comes back."""
    values = np.zeros((1, 3, 3), dtype=np.int16)
    values[0, 1, 1] = 100
    jobs = Jobs(
        projections=Slots(values=values, scales=np.full(1, 0.5, dtype=np.float32)),
        matrices=ParallelGeometry(n_u=1, n_v=1, pixel_mm=1.0).matrices(np.zeros(1)),
        slots=np.zeros(1, dtype=np.int64),
        scales=np.full(1, 0.25),
        splits=np.zeros(1, dtype=np.int64),
        n_splits=1,
        grids=(Grid.slice_xy(voxel_mm=1.0, shape=(1, 1)),),
    )
    result = float(CudaKernel(device).run(jobs).item())
    return "" if result == 12.5 else f"the GPU backprojects a voxel of 12.5 to {result}"
