"""Plots and pictures that learning benchmarks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bluesky_jit.bench.curves import Curve

DOTS_PER_INCH = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Describe one plot of accuracy against seconds: lines by name, and levels that they are to pass, by name."""

    title: str
    lines: Mapping[str, Sequence[Curve]]
    levels: Mapping[str, float] = field(default_factory=dict)


def draw_curves(panels: Sequence[Panel], path: Path, *, xlabel: str = "training / CPU seconds") -> None:
    """Draw panels side by side: a line for each curve, those of one name in one colour."""
    plt = pyplot()
    figure, axes = plt.subplots(
        1, len(panels), figsize=(6.2 * len(panels), 4.6), sharey=True, squeeze=False, layout="constrained"
    )
    for panel, axis in zip(panels, axes[0], strict=True):
        for number, (name, curves) in enumerate(panel.lines.items()):
            for count, curve in enumerate(curves):
                label = name if count == 0 else None
                colour = f"C{number % 10}" if number < 20 else "black"
                style = "-" if number < 10 else "--"
                axis.plot(curve.seconds, curve.accuracy["held-out"], style, color=colour, label=label, linewidth=1.2)
        for name, level in panel.levels.items():
            axis.axhline(level, color="gray", linestyle=":", linewidth=1)
            axis.annotate(name, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7)
        axis.set(title=panel.title, xscale="log", xlabel=xlabel)
        axis.grid(alpha=0.3)
    axes[0, 0].set(ylabel="accuracy α of held-out pairs (1: no denoising, ½: ideal)")
    limit_accuracy(
        axes[0, 0],
        [a for panel in panels for group in panel.lines.values() for c in group for a in c.accuracy["held-out"]],
    )
    axes[0, -1].legend(fontsize=8)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)


def limit_accuracy(axis, values: Sequence[float]) -> None:
    """Show accuracies from the best to 1 at most: what is worse than no denoising lasts a few steps."""
    finite = np.array([value for value in values if np.isfinite(value)])
    best, worst = (float(finite.min()), float(finite.max())) if len(finite) else (0.5, 1.0)
    axis.set_ylim(best - 0.01, max(best + 0.02, min(worst, 1.0)))


def draw_pictures(
    rows: Mapping[str, Mapping[str, np.ndarray]],
    path: Path,
    *,
    captions: Mapping[str, str] | None = None,
    unit: str = "1/mm",
) -> None:
    """Draw images (ny, nx) by row and column; a row has the grey values of its truth, or else of its first image."""
    plt = pyplot()
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    figure, axes = plt.subplots(
        len(rows), len(columns), figsize=(1.9 * len(columns), 2.05 * len(rows)), squeeze=False, layout="constrained"
    )
    for line, (row, images) in zip(axes, rows.items(), strict=True):
        reference = images.get("truth", next(iter(images.values())))
        low, high = np.percentile(reference, (0.5, 99.5))
        shown = None
        for axis, column in zip(line, columns, strict=True):
            axis.set_xticks([])
            axis.set_yticks([])
            if column not in images:
                axis.axis("off")
                continue
            shown = axis.imshow(
                images[column], cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="nearest"
            )
            axis.set_title(column, fontsize=8)
            if captions and (caption := captions.get(f"{row}/{column}")):
                axis.set_xlabel(caption, fontsize=7)
        line[0].set_ylabel(row, fontsize=8)
        if shown is None:
            continue
        bar = figure.colorbar(shown, ax=list(line), fraction=0.02, pad=0.01)
        bar.set_label(f"attenuation / ({unit})", fontsize=7)
        bar.ax.tick_params(labelsize=7)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)


def pyplot():
    """Return matplotlib's pyplot, drawing into files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt
