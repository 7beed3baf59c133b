"""Draw the figures of a family beside their floors, goals and peers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bluesky_jit.bench.figures import Figure, Standing

COLOURS: dict[Standing, str] = {"met": "tab:green", "short of goal": "tab:orange", "short of floor": "tab:red"}
PER_MS = {"ms": 1.0, "s": 1e3}


def draw(figures: Sequence[Figure], path: Path) -> None:
    """Draw times above and multiples of peers' speeds below, as far as they have a mark or a peer."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    marked = [figure for figure in figures if figure.goal is not None or figure.peer is not None]
    times = [figure for figure in marked if figure.unit in PER_MS]
    multiples = [figure for figure in figures if figure.unit == "×" and figure.better == "higher"]
    drawing, axes = plt.subplots(
        2,
        1,
        figsize=(10, 1.6 + 0.3 * (len(times) + len(multiples))),
        height_ratios=[len(times), len(multiples)],
        layout="constrained",
    )
    _dots(axes[0], times)
    axes[0].set(xlabel="time / ms (shorter is better)")
    _dots(axes[1], multiples)
    axes[1].set(xlabel="times as fast as the peer, × (higher is better)")
    axes[0].legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.3, 1.12), ncols=6)
    drawing.savefig(path, dpi=110)
    plt.close(drawing)


def _dots(axis, figures: Sequence[Figure]) -> None:
    """Put one figure on each line: what was measured, floor, goal and peer."""
    from matplotlib.ticker import LogLocator

    lines = range(len(figures))

    def mark(values: Sequence[tuple[int, float]], label: str, marker: str, colour: str, size: int) -> None:
        if values:
            y, x = zip(*values, strict=True)
            axis.plot(x, y, marker, color=colour, markersize=size, label=label)

    scaled = [PER_MS.get(figure.unit, 1.0) for figure in figures]
    for name, marker, colour in (("floor", "|", "tab:red"), ("goal", "|", "tab:green"), ("peer", "x", "tab:gray")):
        found = [(k, scaled[k] * getattr(figures[k], name)) for k in lines if getattr(figures[k], name) is not None]
        mark(found, name, marker, colour, 12 if marker == "|" else 7)
    for standing, colour in COLOURS.items():
        found = [(k, scaled[k] * figures[k].value) for k in lines if figures[k].standing == standing]
        mark(found, f"ours, {standing}" if standing != "met" else "ours", "o", colour, 7)
    axis.set_yticks(lines, [figure.name for figure in figures], fontsize=8)
    axis.set_ylim(len(figures) - 0.5, -0.5)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_formatter(lambda value, _: "")
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", alpha=0.3)
