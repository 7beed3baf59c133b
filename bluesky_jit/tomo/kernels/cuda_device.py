"""A CUDA device, through CuPy: arrays on it, and launches of `backproject.cu`."""

from __future__ import annotations

from importlib import import_module
from importlib.resources import files
from typing import Any, Protocol

import numpy as np


class Device(Protocol):
    """Hold arrays and launch `backproject.cu` on them."""

    @property
    def name(self) -> str: ...

    def free_bytes(self) -> int: ...

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any: ...

    def upload(self, values: np.ndarray) -> Any: ...

    def write(self, array: Any, index: int, values: np.ndarray) -> None: ...

    def download(self, array: Any) -> np.ndarray: ...

    def launch(self, n_blocks: int, block: tuple[int, int], arguments: tuple[Any, ...]) -> None: ...


def source() -> str:
    """Return the CUDA source of the kernel."""
    return files("bluesky_jit.tomo.kernels").joinpath("backproject.cu").read_text()


class CupyDevice:
    """Hold arrays on the present CUDA device, and launch the kernel there, in a stream of its own."""

    def __init__(self) -> None:
        # By name: CuPy is an extra, and each version of CUDA has a package of its own.
        self._cupy: Any = import_module("cupy")
        runtime = self._cupy.cuda.runtime
        self.name: str = runtime.getDeviceProperties(runtime.getDevice())["name"].decode()
        # The network trains in the default stream, which this one shall not wait for.
        self._stream = self._cupy.cuda.Stream(non_blocking=True)
        self._function = self._cupy.RawModule(code=source()).get_function("backproject")

    def free_bytes(self) -> int:
        """Return what the device has free, and what CuPy holds of it unused."""
        free, _ = self._cupy.cuda.runtime.memGetInfo()
        return int(free + self._cupy.get_default_memory_pool().free_bytes())

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        with self._stream:
            return self._cupy.zeros(shape, dtype=dtype)

    def upload(self, values: np.ndarray) -> Any:
        with self._stream:
            return self._cupy.asarray(np.ascontiguousarray(values))

    def write(self, array: Any, index: int, values: np.ndarray) -> None:
        with self._stream:
            array[index].set(np.ascontiguousarray(values))

    def download(self, array: Any) -> np.ndarray:
        with self._stream:
            return array.get()

    def launch(self, n_blocks: int, block: tuple[int, int], arguments: tuple[Any, ...]) -> None:
        with self._stream:
            self._function((n_blocks,), block, arguments)
