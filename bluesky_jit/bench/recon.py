"""How fast and how exact reconstruction is: ours and its peers in one run, and the paper's Fig. 4."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console

from bluesky_jit.bench import load_limit
from bluesky_jit.bench.cone import accuracy_figures, pair_figures, slice_figures
from bluesky_jit.bench.figure4 import figure4
from bluesky_jit.bench.figures import Figure, processor, show, write, write_table
from bluesky_jit.bench.frames import frame_figures, update_figures
from bluesky_jit.bench.linear import linear_figures
from bluesky_jit.bench.parallel import parallel_figures
from bluesky_jit.bench.plot import draw
from bluesky_jit.bench.setups import Turn, make_turn
from bluesky_jit.bench.start import start_figures
from bluesky_jit.session.workers import Workers
from bluesky_jit.tomo.jobs import Kernel
from bluesky_jit.tomo.kernels.cuda import CudaKernel, why_not
from bluesky_jit.tomo.kernels.numba import NumbaKernel

PACKAGES = ("numpy", "scipy", "numba", "torch", "scikit-image", "itk-rtk", "algotom", "astra-toolbox", "ducc0")


BUSY_PERCENT = 10.0
"""Share of the processor that other work takes, above which the console says that times will be longer."""


def run(output: Path, *, quick: bool = False) -> list[Figure]:
    """Measure, write recon.json, figure4.json and the plots into output, and show a table."""
    output.mkdir(parents=True, exist_ok=True)
    console = Console()
    busy = psutil.cpu_percent(interval=1.0)
    if busy > BUSY_PERCENT:
        console.print(f"other work takes {busy:.0f} % of this machine: times will be longer")
    turn = make_turn(quick=quick)
    torch_threads = torch.get_num_threads()
    try:
        with Workers(2) as workers:
            kernels: dict[str, Kernel] = {"1 thread": NumbaKernel(), "2 threads": NumbaKernel(workers)}
            if reason := why_not():
                console.print(f"no GPU kernel: {reason}")
            else:
                kernels["GPU"] = CudaKernel()
            figures = _figures(turn, kernels, output, quick=quick)
            fourth = figure4(turn, kernels, output / "figure4.png", rounds=2 if quick else None)
    finally:
        torch.set_num_threads(torch_threads)
    about: dict[str, Any] = {"quick": quick, "busy_before_percent": busy, "gpu": _gpu(kernels), "versions": _versions()}
    write(figures, output / "recon.json", **about)
    write(fourth, output / "figure4.json", **about)
    draw(figures, output / "recon.png")
    title = "recon: a turn of the paper's scanner" + (", in small" if quick else "")
    text = (
        f"{processor()}, {os.cpu_count()} cores, {about['gpu'] or 'no GPU'}; other work took {busy:.0f} % of it just "
        f"before. Versions: {', '.join(f'{name} {number}' for name, number in about['versions'].items())}."
    )
    write_table([*figures, *fourth], output / "recon.md", title, text)
    show(figures, title)
    return figures


def _figures(turn: Turn, kernels: dict[str, Kernel], output: Path, *, quick: bool) -> list[Figure]:
    few = 2 if quick else 7
    return [
        *pair_figures(turn, kernels, rounds=3 if quick else 40),
        *slice_figures(turn, kernels, rounds=few),
        *accuracy_figures(turn, kernels),
        *load_limit.figures(repeats=1 if quick else 15),
        *linear_figures(turn, kernels["1 thread"], output / "recon-linear.png", rounds=few),
        *frame_figures(turn, rounds=5 if quick else 60),
        *update_figures(turn, frames=5 if quick else 150),
        *parallel_figures(n_u=256 if quick else 2048, n_angles=180 if quick else 1500, rounds=1 if quick else 3),
        *start_figures(repeats=1 if quick else 5),
    ]


def _gpu(kernels: dict[str, Kernel]) -> str | None:
    gpu = kernels.get("GPU")
    return gpu.device_name if isinstance(gpu, CudaKernel) else None


def _versions() -> dict[str, str]:
    """Return the versions of what the figures depend on, as far as it is installed."""
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
