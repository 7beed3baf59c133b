"""How long a fresh process takes until it can reconstruct, when its loops were compiled before."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

from bluesky_jit.bench.figures import Figure

WARM_START_S = 0.5
"""Goal for choosing the kernel in a fresh process (issue 3)."""
SCRIPT = """
import json, time
began = time.perf_counter()
import numpy as np
from bluesky_jit.tomo.geometry import ConeGeometry
from bluesky_jit.tomo.kernels import choose
from bluesky_jit.tomo.live import FilteredBackprojection
from bluesky_jit.tomo.prepare import FrameInfo, Preparation
from bluesky_jit.tomo.window import quantise
import numba
imported = time.perf_counter()
kernel = choose("auto")
chosen = time.perf_counter()
n_v, n_u = 647, 768
preparation = Preparation(ConeGeometry(n_u=n_u, n_v=n_v, pixel_mm=0.2, source_axis_mm=441.4, source_detector_mm=1069))
preparation.dark_flat.add_flats(np.full((1, n_v, n_u), 9000, np.uint16))
counts = np.full((n_v, n_u), 4000, np.uint16)
frame, _ = preparation.filtered(counts, FrameInfo(angle_rad=0.0, acquisition=0, time_s=0.0))
quantise(frame, np.zeros((n_v + 2, n_u + 2), np.int16))
prepared = time.perf_counter()
print(json.dumps([imported - began, chosen - imported, prepared - chosen]))
"""


def start_figures(*, repeats: int) -> list[Figure]:
    """Measure fresh processes, one after another; one that fills the caches comes before them."""
    times_s = np.array([_fresh_process() for _ in range(repeats + 1)])[1:]
    imported, chosen, prepared = np.median(times_s, axis=0)
    return [
        Figure(
            name="warm start: the kernel chosen and ready",
            value=float(chosen),
            unit="s",
            better="lower",
            goal=WARM_START_S,
            note="in a fresh process; its loops come from the cache",
        ),
        Figure(
            name="warm start: the first frame filtered and stored",
            value=float(prepared),
            unit="s",
            better="lower",
            note="after that; the filter is made and its loops come from the cache",
        ),
        Figure(
            name="import of the reconstruction",
            value=float(imported),
            unit="s",
            better="lower",
            note="before that; NumPy, SciPy and numba included",
        ),
    ]


def _fresh_process() -> list[float]:
    """Return the seconds for importing, for choosing the kernel, and for preparing the first frame."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise RuntimeError(f"a fresh process could not reconstruct: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)
