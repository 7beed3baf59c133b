"""The paper's Fig. 4 for our reconstruction: slices, slabs and sequences against their size.

The paper's values are those that its text states, and no others: we have no table of what the figure shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bluesky_jit.bench.figures import Figure
from bluesky_jit.bench.setups import BATCH, N_SPLITS, Turn
from bluesky_jit.bench.timing import interleaved
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Jobs, Kernel

SIZES = (20, 40, 60, 100, 200, 500, 1000)
LARGEST_PATCH = 100
"""Points across the largest patches that a batch is timed of: training takes small ones."""
PLANES = 3
"""Planes of a slab, and slices of a sequence, as in the paper."""
LEAST_ROUNDS, MOST_ROUNDS, UPDATES = 5, 50, 2**28
"""Small sizes are timed more often: as many rounds as make so many voxel-angle updates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """Hold what the paper's text says of a size, in ms, and in which words."""

    points: int
    ms: float
    words: str


STATED = (
    Stated(points=20, ms=2.0, words="paper's text: a small patch, 2 ms “regardless of size”"),
    Stated(points=60, ms=64.0, words="paper's text: a batch of 60-by-60, 64 ms"),
    Stated(points=1000, ms=4.5, words="paper's text: 1000-by-1000 slab, “an order of magnitude faster” than 45 ms"),
)
"""Of an Nvidia GeForce RTX 2080 Ti, section “Training data generation”."""

LINES = ("--", "-", ":")
"""Of the kernels in turn: lines of one and two threads may lie on each other."""
MARKERS = {"slice": "o", "slab": "x", "sequence": "^", "batch of pairs": "s"}


def figure4(turn: Turn, kernels: dict[str, Kernel], path: Path, *, rounds: int | None = None) -> list[Figure]:
    """Time every kind and size with every kernel, and draw them; rounds: instead of as many as suit the size."""
    made: dict[tuple[str, str, int], float] = {}
    for size in (size for size in SIZES if size <= turn.points):
        contestants: dict[tuple[str, str], Callable[[], object]] = {
            (kind, name): _runner(kernel, jobs)
            for kind, jobs in _jobs(turn, size).items()
            for name, kernel in kernels.items()
        }
        n_updates = PLANES * size**2 * len(turn.angles_rad)
        suits = int(np.clip(UPDATES // n_updates, LEAST_ROUNDS, MOST_ROUNDS))
        times = interleaved({" of ".join(key): run for key, run in contestants.items()}, rounds=rounds or suits)
        made |= {(*key, size): float(np.median(times[" of ".join(key)])) for key in contestants}
    _draw(made, len(turn.angles_rad), path)
    return [
        Figure(name=f"{kind}, {size}-by-{size}, {name}", value=ms, unit="ms", better="lower", note=_stated(kind, size))
        for (kind, name, size), ms in made.items()
    ]


def _jobs(turn: Turn, size: int) -> dict[str, list[Jobs]]:
    """Return the job tables of each kind: a sequence is three, one after the other."""
    whole = turn.grids["axial"]
    corner = (turn.points - size) // 2
    grid: Grid = whole.patch((0, corner, corner), (1, size, size))
    found = {
        "slice": [turn.jobs((grid,))],
        "slab": [turn.jobs((grid.slab(PLANES),))],
        "sequence": [turn.jobs((grid,))] * PLANES,
    }
    if size <= LARGEST_PATCH and size < turn.points:
        found["batch of pairs"] = [turn.jobs(turn.patches(size), splits=N_SPLITS)]
    return found


def _runner(kernel: Kernel, jobs: list[Jobs]) -> Callable[[], object]:
    return lambda: [kernel.run(table) for table in jobs]


def _stated(kind: str, size: int) -> str:
    """Return what the paper's text says of such a reconstruction, if anything."""
    places = {("slice", 20): 0, ("batch of pairs", 60): 1, ("slab", 1000): 2}
    place = places.get((kind, size))
    return "" if place is None else STATED[place].words


def _draw(made: dict[tuple[str, str, int], float], n_angles: int, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 6.5), layout="constrained")
    kernels = list(dict.fromkeys(name for _, name, _ in made))
    for number, name in enumerate(kernels):
        for kind, marker in MARKERS.items():
            points = sorted((size, ms) for (k, n, size), ms in made.items() if (k, n) == (kind, name))
            if points:
                label = f"{kind} of {BATCH}" if kind == "batch of pairs" else kind
                style = {"color": f"C{number}", "marker": marker, "markersize": 6, "linestyle": LINES[number]}
                axis.plot(*zip(*points, strict=True), label=f"{label.replace(' of pairs', '')}, {name}", **style)
    for stated in STATED:
        axis.plot(stated.points, stated.ms, "k*", markersize=12)
        # Where no line passes.
        to_the_right = stated.points == min(SIZES)
        axis.annotate(
            stated.words.replace("paper's text: ", "").replace(", ", ",\n"),
            (stated.points, stated.ms),
            xytext=(10, -18) if to_the_right else (-8, -30),
            textcoords="offset points",
            ha="left" if to_the_right else "right",
            fontsize=8,
        )
    axis.plot([], [], "k*", markersize=12, label="what the paper's text says (RTX 2080 Ti)")
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="points across, n_x",
        ylabel="time / ms",
        title=f"from {n_angles} projections",
    )
    axis.set_xticks(SIZES, [str(size) for size in SIZES])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, ncols=2, loc="upper left")
    figure.savefig(path, dpi=110)
    plt.close(figure)
