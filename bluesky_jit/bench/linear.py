"""How the cost of backprojection grows with voxels times angles: a straight line, or not."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from bluesky_jit.bench.figures import Figure
from bluesky_jit.bench.setups import Turn
from bluesky_jit.bench.timing import interleaved
from bluesky_jit.tomo.jobs import Kernel

FINER = (8, 4, 2, 1)
"""Parts of the points across a slice, ..."""
PARTS = (4, 2, 1)
"""... and of the angles of a turn, that are timed."""


def linear_figures(turn: Turn, kernel: Kernel, path: Path, *, rounds: int) -> list[Figure]:
    """Time slices of several sizes from part of a turn or all of it, in one thread; fit a line, and draw both."""
    whole = turn.grids["axial"]
    cases = {
        f"{turn.points // finer}² × {len(turn.angles_rad) // part}": turn.jobs(
            (whole.coarser(finer),), n=len(turn.angles_rad) // part
        )
        for finer in FINER
        for part in PARTS
    }
    times = interleaved({name: partial(kernel.run, jobs) for name, jobs in cases.items()}, rounds=rounds)
    updates = np.array([int(np.prod(jobs.result_shape)) * len(jobs.slots) for jobs in cases.values()], dtype=np.float64)
    ms = np.array([np.median(times[name]) for name in cases])
    per_call, per_update = fit_line(updates, ms)
    deviation = ms / (per_call + per_update * updates) - 1
    worst = int(np.abs(deviation).argmax())
    _draw(updates, ms, (per_call, per_update), path)
    return [
        Figure(
            name="cost against voxels × angles: largest deviation from a line",
            value=100 * float(abs(deviation[worst])),
            unit="%",
            better="lower",
            note=f"{list(cases)[worst]}; the line: {1 / per_update / 1e6:.2f}·10⁹ updates/s and "
            f"{1e3 * per_call:.0f} µs a call, 1 thread",
        )
    ]


def fit_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return intercept (none below 0) and slope of the line with the least relative squared deviation."""
    ones = np.ones_like(y)
    (intercept, slope), *_ = np.linalg.lstsq(np.stack([1 / y, x / y], axis=1), ones)
    if intercept < 0:
        intercept, slope = 0.0, float((x / y).sum() / ((x / y) ** 2).sum())
    return float(intercept), float(slope)


def _draw(updates: np.ndarray, ms: np.ndarray, line: tuple[float, float], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
    along = np.geomspace(updates.min(), updates.max(), 100)
    axis.plot(along, line[0] + line[1] * along, color="gray", label="line: so much a call, and so much an update")
    axis.plot(updates, ms, "o", label="measured, 1 thread")
    axis.set(xscale="log", yscale="log", xlabel="voxels × angles", ylabel="time of a slice / ms")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
