"""The paper's Table 1: how many samples a second each architecture trains on, and how many slices it denoises."""

from __future__ import annotations

from pathlib import Path

from bluesky_jit.bench.drawing import DOTS_PER_INCH, pyplot
from bluesky_jit.bench.figures import Figure, show, write, write_table
from bluesky_jit.bench.throughput import SLICE_POINTS, Throughput, measure
from bluesky_jit.learn.presets import PRESETS

PAPER = {
    "standard": (4190, 73),
    "c16": (4119, 38),
    "c32": (4058, 16),
    "v30": (3725, 72),
    "v40": (4111, 72),
    "v60": (2983, 71),
    "v100": (1303, 71),
    "v150": (591, 71),
    "z3": (3721, 29),
    "z5": (3820, 17),
    "z7": (3778, 10),
    "t3": (4597, 23),
    "t5": (4342, 14),
    "t7": (3935, 10),
}
"""n_opt in samples/s, and frames of 1024² in Hz, on an Nvidia GeForce RTX 2080 Ti."""
ROUNDS = 3
QUICK_PRESETS = ("unet-fast", "standard", "t3")


def run(output: Path, *, quick: bool = False) -> list[Figure]:
    """Measure every preset, and write table1.json, table1.md and table1.png."""
    output.mkdir(parents=True, exist_ok=True)
    points = 64 if quick else SLICE_POINTS
    presets = QUICK_PRESETS if quick else tuple(name for name, preset in PRESETS.items() if preset.network is not None)
    found = measure(presets, threads=(1,) if quick else (1, 2), rounds=1 if quick else ROUNDS, points=points)
    figures = [figure for each in found for figure in _figures(each, points)]
    write(figures, output / "table1.json", quick=quick)
    title = "Table 1: architectures and their speed" + (", in small" if quick else "")
    text = (
        "Batches of 32 samples, one thread in CPU seconds and two in wall time, on this machine's processor. Peer: the "
        "paper's Table 1, on an Nvidia GeForce RTX 2080 Ti."
    )
    write_table(figures, output / "table1.md", title, text)
    _draw(found, output / "table1.png", points)
    show(figures, title)
    return figures


def _figures(found: Throughput, points: int) -> list[Figure]:
    samples, slices = PAPER.get(found.preset, (None, None))
    threads = "1 thread" if found.threads == 1 else f"{found.threads} threads"
    return [
        Figure(
            name=f"{found.preset}: {name}, {threads}",
            value=value,
            unit=unit,
            better="higher",
            peer=peer,
        )
        for name, value, unit, peer in (
            ("training", found.samples_per_s, "samples/s", samples),
            (f"slices of {points}²", found.slices_per_s, "Hz", slices),
        )
    ]


def _draw(found: list[Throughput], path: Path, points: int) -> None:
    """Draw training against denoising, each preset a point, the paper's beside them."""
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(8, 6), layout="constrained")
    one = [each for each in found if each.threads == 1]
    axis.plot([e.samples_per_s for e in one], [e.slices_per_s for e in one], "o", label="ours, 1 CPU thread")
    axis.plot(*zip(*PAPER.values(), strict=True), "k*", label="the paper's, RTX 2080 Ti")
    labels = [(e.preset, e.samples_per_s, e.slices_per_s) for e in one] + [(name, *at) for name, at in PAPER.items()]
    for name, samples, slices in labels:
        axis.annotate(name, (samples, slices), xytext=(4, 3), textcoords="offset points", fontsize=7)
    axis.set(
        xscale="log", yscale="log", xlabel="training / (samples/s)", ylabel=f"denoising / (slices of {points}² per s)"
    )
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)
