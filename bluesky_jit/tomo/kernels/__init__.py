"""Backprojection kernels: one job table in, one answer out, whatever the hardware."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass

from bluesky_jit.tomo.jobs import CallingThread, Kernel, Pool, ReferenceKernel

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Name a kernel, say what it is, why it cannot run here (empty: it can), and make it ready to run.

    what: may hold fields of the kernel that was made; automatic: whether it is fast enough to be chosen without being
    asked for.
    """

    name: str
    what: str
    why_not: Callable[[], str]
    make: Callable[[Pool], Kernel]
    automatic: bool = True


def _cuda_why_not() -> str:
    from bluesky_jit.tomo.kernels.cuda import why_not

    return why_not()


def _cuda(pool: Pool) -> Kernel:
    from bluesky_jit.tomo.kernels.cuda import CudaKernel

    return CudaKernel()


def _numba(pool: Pool) -> Kernel:
    from bluesky_jit.tomo.kernels.numba import NumbaKernel

    kernel = NumbaKernel(pool)
    kernel.prepare()
    return kernel


def _astra_why_not() -> str:
    try:
        from bluesky_jit.tomo.kernels.astra import AstraKernel

        kernel = AstraKernel()
    except ImportError as error:
        return f"the ASTRA toolbox cannot be loaded ({error}): pip install 'bluesky-jit[astra]'"
    return "" if kernel.on_gpu else "ASTRA finds no GPU, and on the CPU it has horizontal parallel-beam slices only"


def _astra(pool: Pool) -> Kernel:
    from bluesky_jit.tomo.kernels.astra import AstraKernel

    return AstraKernel()


CANDIDATES = (
    Candidate(name="cuda", what="CUDA on {kernel.device_name}", why_not=_cuda_why_not, make=_cuda),
    Candidate(name="numba", what="numba on the CPU", why_not=lambda: "", make=_numba),
    Candidate(
        name="astra", what="ASTRA on the GPU (slow, a check)", why_not=_astra_why_not, make=_astra, automatic=False
    ),
    Candidate(
        name="reference",
        what="NumPy reference (slow, exact)",
        why_not=lambda: "",
        make=lambda pool: ReferenceKernel(),
        automatic=False,
    ),
)
"""From the fastest down: "auto" takes the first that runs here."""
KERNELS = ("auto", *(candidate.name for candidate in CANDIDATES))


def choose(name: str = "auto", pool: Pool | None = None) -> Kernel:
    """Make the kernel of that name, ready to run, and say in one line of the log which and why, once a process.

    pool: where its tasks run; by default in the calling thread. Raises ValueError for a name that there is not, and for
    a kernel that cannot run here.
    """
    if name not in KERNELS:
        raise ValueError(f"kernel is {name!r}: give one of {', '.join(KERNELS)}")
    pool = pool or CallingThread()
    reasons: list[str] = []
    for candidate in CANDIDATES:
        if not (candidate.automatic if name == "auto" else candidate.name == name):
            continue
        reason = candidate.why_not()
        if not reason:
            kernel = candidate.make(pool)
            why = "asked for" if name != "auto" else f"chosen automatically{''.join(reasons)}"
            _say(f"{candidate.what.format(kernel=kernel)} ({why})")
            return kernel
        if name != "auto":
            raise ValueError(f"kernel is {name!r} and cannot run here: {reason}; or let kernel be 'auto'")
        reasons.append(f"; not {candidate.name}: {reason}")
    raise RuntimeError(f"no kernel runs here{''.join(reasons)}")


@functools.cache
def _say(which_and_why: str) -> None:
    """Tell the log, once a process: it is chosen anew for every run."""
    logger.info("backprojection kernel: %s", which_and_why)
