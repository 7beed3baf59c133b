"""The GPU's source compiled for the host: a device that every machine with a C++ compiler has."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_jit.tomo.kernels.cuda import CudaKernel

KERNELS = Path(str(files("bluesky_jit.tomo.kernels")))
LAUNCHER = Path(__file__).with_suffix(".cpp")
WARNINGS = ("-Wall", "-Wextra", "-Wshadow", "-Werror")
COMPILERS = ("g++", "c++", "clang++")


@functools.cache
def _library() -> ctypes.CDLL:
    """Compile the source; skip the test where there is no compiler."""
    compiler = next((path for path in map(shutil.which, COMPILERS) if path), None)
    if compiler is None:
        pytest.skip(f"no C++ compiler ({', '.join(COMPILERS)})")
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory) / "backproject.so"
        subprocess.run(
            [compiler, "-std=c++17", "-O2", *WARNINGS, "-shared", "-fPIC", f"-I{KERNELS}", LAUNCHER, "-o", library],
            check=True,
        )
        return ctypes.CDLL(str(library))


class HostDevice:
    """Run the kernel's source on the host; memory_bytes: what the device pretends to have free."""

    name = "host"

    def __init__(self, memory_bytes: int = 2**40) -> None:
        self._library = _library()
        self.memory_bytes = memory_bytes
        self.launches = 0
        self.largest = 0
        """Bytes of the largest array it was asked for."""

    def free_bytes(self) -> int:
        return self.memory_bytes

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        array = np.zeros(shape, dtype=dtype)
        self.largest = max(self.largest, array.nbytes)
        return array

    def upload(self, values: np.ndarray) -> np.ndarray:
        self.largest = max(self.largest, values.nbytes)
        return np.ascontiguousarray(values).copy()

    def write(self, array: np.ndarray, index: int, values: np.ndarray) -> None:
        array[index] = values

    def download(self, array: np.ndarray) -> np.ndarray:
        return array

    def launch(self, n_blocks: int, block: tuple[int, int], arguments: tuple[Any, ...]) -> None:
        self.launches += 1
        self._library.launch(
            ctypes.c_uint(n_blocks),
            *(ctypes.c_uint(size) for size in block),
            *(
                ctypes.c_void_p(argument.ctypes.data)
                if isinstance(argument, np.ndarray)
                else np.ctypeslib.as_ctypes_type(argument.dtype)(argument.item())
                for argument in arguments
            ),
        )


def host_kernel() -> CudaKernel:
    return CudaKernel(HostDevice())
