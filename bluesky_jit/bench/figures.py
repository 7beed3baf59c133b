"""What every benchmark writes: figures as JSON, and a table in which those short of their goal stand out."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Hold one measured figure; goal and peer are in the same unit, None where there is none."""

    name: str
    value: float
    unit: str
    better: Literal["lower", "higher"]
    goal: float | None = None
    peer: float | None = None
    note: str = ""

    @property
    def meets_goal(self) -> bool:
        if self.goal is None:
            return True
        return self.value <= self.goal if self.better == "lower" else self.value >= self.goal


def write(figures: Sequence[Figure], path: Path) -> None:
    """Write figures, and on what machine they were measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    path.write_text(
        json.dumps({"machine": machine, "figures": [asdict(figure) for figure in figures]}, indent=1) + "\n"
    )


def show(figures: Sequence[Figure], title: str) -> None:
    """Print figures as a table."""
    table = Table(title=title)
    for column in ("figure", "value", "goal", "peer", "note"):
        table.add_column(column, justify="left" if column in ("figure", "note") else "right")
    for figure in figures:
        style = "" if figure.meets_goal else "bold red"
        sign = "≤" if figure.better == "lower" else "≥"
        table.add_row(
            figure.name,
            f"{figure.value:.3g} {figure.unit}",
            "" if figure.goal is None else f"{sign} {figure.goal:g} {figure.unit}",
            "" if figure.peer is None else f"{figure.peer:.3g} {figure.unit}",
            figure.note,
            style=style,
        )
    Console().print(table)
