"""What every benchmark writes: figures as JSON, and a table in which those short of their goal stand out."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

Standing = Literal["met", "short of goal", "short of floor"]
LOG_WIDTH = 180
"""Characters in a line of a table that goes to a file."""
STYLES: dict[Standing, str] = {"met": "", "short of goal": "yellow", "short of floor": "bold red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Hold one measured figure; floor, goal and peer are in the same unit, None where there is none.

    floor: what must be reached; goal: what is aimed at, and must be reached where there is no floor.
    """

    name: str
    value: float
    unit: str
    better: Literal["lower", "higher"]
    floor: float | None = None
    goal: float | None = None
    peer: float | None = None
    note: str = ""

    @property
    def meets_goal(self) -> bool:
        return self._reaches(self.goal)

    @property
    def standing(self) -> Standing:
        if self.meets_goal:
            return "met"
        return "short of goal" if self.floor is not None and self._reaches(self.floor) else "short of floor"

    def _reaches(self, mark: float | None) -> bool:
        if mark is None:
            return True
        return self.value <= mark if self.better == "lower" else self.value >= mark


def write(figures: Sequence[Figure], path: Path, **about: Any) -> None:
    """Write figures, on what machine they were measured, and what else there is to know about the run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {"processor": processor(), "cores": os.cpu_count()}
    path.write_text(
        json.dumps({"machine": machine, **about, "figures": [asdict(figure) for figure in figures]}, indent=1) + "\n"
    )


def write_table(figures: Sequence[Figure], path: Path, title: str, text: str) -> None:
    """Write figures as a page of Markdown, those short of their goal in bold."""
    lines = [f"# {title}", "", "Made by the benchmark itself; do not edit.", "", text, ""]
    lines += ["| figure | value | floor | goal | peer | |", "|---|---|---|---|---|---|"]
    for figure in figures:
        value, *others = _cells(figure)
        if figure.standing != "met":
            value = f"**{value}**, {figure.standing}"
        lines.append(f"| {figure.name} | {value} | {' | '.join(others)} | {figure.note} |")
    path.write_text("\n".join(lines) + "\n")


def _cells(figure: Figure) -> tuple[str, str, str, str]:
    """Return value, floor, goal and peer as a table shows them."""
    sign = "≤" if figure.better == "lower" else "≥"
    floor, goal = ("" if mark is None else f"{sign} {mark:g} {figure.unit}" for mark in (figure.floor, figure.goal))
    peer = "" if figure.peer is None else f"{_three_digits(figure.peer)} {figure.unit}"
    return f"{_three_digits(figure.value)} {figure.unit}", floor, goal, peer


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Name the processor as well as the system does."""
    if cpuinfo.exists():
        fields = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        found = {name.strip(): value.strip() for name, _, value in fields}
        if "model name" in found:
            return f"{found['model name']} (family {found.get('cpu family')}, model {found.get('model')})"
    return platform.processor() or platform.machine()


def show(figures: Sequence[Figure], title: str) -> None:
    """Print figures as a table."""
    table = Table(title=title)
    for column in ("figure", "value", "floor", "goal", "peer", "note"):
        table.add_column(column, justify="left" if column in ("figure", "note") else "right")
    for figure in figures:
        table.add_row(figure.name, *_cells(figure), figure.note, style=STYLES[figure.standing])
    console = Console()
    if not console.is_terminal:
        console.width = LOG_WIDTH
    console.print(table)
