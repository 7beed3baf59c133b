"""Backprojection kernels: one job table in, one answer out, whatever the hardware."""

from __future__ import annotations

import logging

from bluesky_jit.tomo.jobs import Kernel, ReferenceKernel

logger = logging.getLogger(__name__)

KERNELS = ("auto", "numba", "reference")


def choose(name: str = "auto") -> Kernel:
    """Make the kernel of that name, ready to run; "auto" is the fastest that this machine has."""
    if name not in KERNELS:
        raise ValueError(f"kernel is {name!r}: give one of {', '.join(KERNELS)}")
    if name == "reference":
        logger.info("backprojection kernel: NumPy reference (slow, exact)")
        return ReferenceKernel()
    from bluesky_jit.tomo.kernels.numba import NumbaKernel

    kernel = NumbaKernel()
    kernel.prepare()
    logger.info("backprojection kernel: numba on the CPU%s", " (chosen automatically)" if name == "auto" else "")
    return kernel
