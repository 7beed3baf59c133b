"""What the libraries that compute find here: GPU, torch, numba; run as a process of its own by machine.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bluesky_jit.doctor.files import writable
from bluesky_jit.doctor.finding import Finding, fine, problem, warning

CACHE_BYTES = 100_000_000
"""Compiled loops take some 20 MB."""


def gpu(kernel: str) -> Finding:
    """Tell whether slices are made on a GPU, and if not, why; kernel: as tomo.kernel asks."""
    from bluesky_jit.tomo.kernels.cuda import why_not

    reason = why_not()
    if not reason:
        return fine("GPU", "backprojection runs on it (tomo.kernel)")
    if kernel == "cuda":
        return problem("GPU", f"tomo.kernel is cuda, and cannot run: {reason}; or set tomo.kernel to auto")
    if "no NVIDIA driver" in reason:
        return fine("GPU", f"{reason}: slices are made on the CPU")
    return warning("GPU", f"slices are made on the CPU: {reason}")


def network() -> list[Finding]:
    """Tell where networks train, and how precisely."""
    import torch

    from bluesky_jit.learn.bfloat16 import has_bfloat16

    where = f"on {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "on the CPU, one thread a stage"
    half = "bfloat16 is native" if has_bfloat16() else "bfloat16 is emulated, so presets compute in float32"
    return [fine("torch", f"{torch.__version__} trains {where}; {half}")]


def loops() -> list[Finding]:
    """Tell whether compiled loops are kept, so that a session does not compile for ten seconds at each start."""
    import numba

    try:
        from bluesky_jit.tomo.kernels.numba import backproject
    except RuntimeError as error:
        remedy = "set NUMBA_CACHE_DIR to a folder that can be written to"
        return [problem("numba", f"compiled loops cannot be kept ({error}): {remedy}")]
    kept: Any = getattr(backproject, "_cache", None)
    folder = Path(str(getattr(kept, "cache_path", "")))
    found = writable("numba", folder, "NUMBA_CACHE_DIR", least_bytes=CACHE_BYTES)
    if found.verdict != "fine":
        return [found]
    return [fine("numba", f"{numba.__version__}; compiled loops are kept in {folder}")]


def main() -> None:
    """Print what was found as a line of JSON, the last one."""
    found = [gpu(sys.argv[1]), *network(), *loops()]
    sys.stdout.write(json.dumps([(each.subject, each.verdict, each.text) for each in found]) + "\n")


if __name__ == "__main__":
    main()
