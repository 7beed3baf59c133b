"""The paper's Fig. 10: learning online while patches move at once from the top of the container to its bottom."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from bluesky_jit.bench.curves import Curve
from bluesky_jit.bench.drawing import DOTS_PER_INCH, limit_accuracy, pyplot
from bluesky_jit.bench.experiments import FULL, QUICK
from bluesky_jit.bench.figures import Figure, show, write, write_table
from bluesky_jit.bench.online import HELD_OUT_TURNS, Replay, Strategy, follow, learn_beforehand
from bluesky_jit.bench.trials import CACHE

JUMP_S, END_S = 60.0, 90.0
"""CPU seconds of training: when patches move, and when it ends. (The paper: 336 s of 600 s, on GPUs.)"""
PRETRAINED, TUNED = "T3 pretrained", "total variation"
OURS = "ours, 640"
STRATEGIES = (
    Strategy(name="T3, no buffer", preset="t3", buffer=0),
    Strategy(name="T3, 32", preset="t3", buffer=32),
    Strategy(name="T3, 320", preset="t3", buffer=320),
    Strategy(name=OURS, preset="unet-fast", buffer=640, steps_per_batch=4, watches=True),
    Strategy(
        name="ours, a quarter from the whole jar",
        preset="unet-fast",
        buffer=640,
        steps_per_batch=4,
        watches=True,
        whole_every=4,
    ),
)
"""Ours make a batch for every four steps, as a session does."""
PRETRAINING_S = 120.0
TUNING_S = 20.0
"""CPU seconds: T3 learns the top at leisure; the weight of total variation is found on pairs from there."""
NEAR = 0.01
FLOOR_S, GOAL_S = 1.0, 0.5
"""Recovered is an accuracy that is so near to what it is in the end; floor and goal of ours."""
WORST_WITHIN_S = 1.0
"""Part of the time after the jump in which the worst accuracy is told."""


def replay(cache: Path, *, quick: bool = False, jump_s: float = JUMP_S) -> Replay:
    """Return when the jump comes in which recording."""
    if quick:
        return Replay(setup=replace(QUICK, turns=2 + HELD_OUT_TURNS), jump_s=0.1, end_s=0.2, folder=cache)
    return Replay(
        setup=replace(FULL, turns=7 + HELD_OUT_TURNS), jump_s=jump_s, end_s=jump_s + END_S - JUMP_S, folder=cache
    )


def run(output: Path, *, quick: bool = False, cache: Path = CACHE, jump: float = JUMP_S) -> list[Figure]:
    """Follow every strategy, and write fig10.json, fig10.md and fig10.png; jump: when patches move, in s."""
    output.mkdir(parents=True, exist_ok=True)
    what = replay(cache, quick=quick, jump_s=jump)
    curves = {}
    for strategy in STRATEGIES:
        Console().print(f"following {strategy.name}")
        curves[strategy.name] = follow(strategy, what)
    fixed = {
        PRETRAINED: learn_beforehand(PRETRAINED, "t3", what, seconds=0.1 if quick else PRETRAINING_S),
        TUNED: learn_beforehand(TUNED, "tv", what, seconds=0.1 if quick else TUNING_S),
    }
    figures = [figure for name, found in curves.items() for figure in _figures(name, found, what.jump_s)]
    figures += [
        Figure(name=f"{name}: α at the {part}", value=found.accuracy[part][-1], unit="", better="lower")
        for name, found in fixed.items()
        for part in ("top", "bottom")
    ]
    about = {name: asdict(found) for name, found in {**curves, **fixed}.items()}
    write(figures, output / "fig10.json", quick=quick, jump_s=what.jump_s, curves=about)
    title = "Fig. 10: learning online, with a jump" + (", in small" if quick else "")
    text = f"At {what.jump_s:g} CPU seconds of training patches move from the top of the container to its bottom."
    write_table(figures, output / "fig10.md", title, text)
    _draw(curves, fixed, what.jump_s, output / "fig10.png")
    show(figures, title)
    return figures


def _figures(name: str, found: Curve, jump_s: float) -> list[Figure]:
    """Return the accuracies before, just after and long after the jump, and how soon it is near the last."""
    seconds, accuracy = np.array(found.seconds), np.array(found.accuracy["held-out"])
    last_before = int(np.searchsorted(seconds, jump_s))
    after, later = accuracy[last_before + 1 :], seconds[last_before + 1 :] - jump_s
    recovered = recovery(later, after)
    worst = after[later <= max(WORST_WITHIN_S, float(later[0]))].max()
    ours = name == OURS
    return [
        Figure(name=f"{name}: α before the jump", value=float(accuracy[last_before]), unit="", better="lower"),
        Figure(
            name=f"{name}: worst α within {WORST_WITHIN_S:g} s after it", value=float(worst), unit="", better="lower"
        ),
        Figure(name=f"{name}: α in the end", value=float(after[-1]), unit="", better="lower"),
        Figure(
            name=f"{name}: recovery",
            value=recovered,
            unit="s",
            better="lower",
            floor=FLOOR_S if ours else None,
            goal=GOAL_S if ours else None,
            note=f"until α is for good within {NEAR:g} of what it is in the end",
        ),
    ]


def recovery(later: np.ndarray, accuracy: np.ndarray) -> float:
    """Return after how many seconds accuracy is near its last value and stays so."""
    far = np.flatnonzero(accuracy > accuracy[-1] + NEAR)
    return float(later[far[-1] + 1]) if len(far) else 0.0


def _draw(curves: dict[str, Curve], fixed: dict[str, Curve], jump_s: float, path: Path) -> None:
    """Draw all of it, and the seconds around the jump."""
    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(12, 5), sharey=True, layout="constrained")
    end_s = max(found.seconds[-1] for found in curves.values())
    close_s = (end_s - jump_s) / 5
    for axis in axes:
        for name, found in curves.items():
            axis.plot(found.seconds, found.accuracy["held-out"], ".-", markersize=3, linewidth=1, label=name)
        for (name, found), style in zip(fixed.items(), ("-", "--"), strict=True):
            levels = [found.accuracy["top"][-1], found.accuracy["bottom"][-1]]
            axis.plot([0, jump_s, jump_s, end_s], np.repeat(levels, 2), f"k{style}", linewidth=1, label=name)
        axis.axvline(jump_s, color="gray", linewidth=0.8)
        axis.set(xlabel="training / CPU seconds")
        axis.grid(alpha=0.3)
    axes[0].set(ylabel="accuracy α of held-out pairs (1: no denoising, ½: ideal)", xlim=(0, end_s))
    axes[1].set(xlim=(jump_s - close_s / 4, jump_s + close_s), title="around the jump")
    settled = [a for found in curves.values() for a in found.accuracy["held-out"][len(found.seconds) // 4 :]]
    limit_accuracy(axes[0], [a for a in settled if math.isfinite(a)])
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)
