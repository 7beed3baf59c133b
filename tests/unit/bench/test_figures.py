"""Figures: what is short of its goal stands out, and what is written can be read back."""

import json
from pathlib import Path

import pytest

from bluesky_jit.bench.figures import Figure, processor, write, write_table


@pytest.mark.parametrize(
    ("value", "better", "goal", "meets"),
    [(0.5, "lower", 1.0, True), (1.5, "lower", 1.0, False), (0.5, "higher", 1.0, False), (2.0, "higher", None, True)],
)
def test_a_goal_is_met_from_its_own_side(value: float, better: str, goal: float | None, meets: bool) -> None:
    assert Figure(name="n", value=value, unit="ms", better=better, goal=goal).meets_goal is meets  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "floor", "standing"),
    [(2.0, 4.0, "met"), (3.0, 4.0, "short of goal"), (5.0, 4.0, "short of floor"), (3.0, None, "short of floor")],
)
def test_short_of_the_floor_is_worse_than_short_of_the_goal(value: float, floor: float | None, standing: str) -> None:
    assert Figure(name="n", value=value, unit="ms", better="lower", floor=floor, goal=2.0).standing == standing


def test_the_processor_is_named_as_the_system_names_it(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\ncpu family\t: 6\nmodel\t\t: 167\nmodel name\t: A Processor: fast\n\n")
    assert processor(cpuinfo) == "A Processor: fast (family 6, model 167)"
    assert processor(tmp_path / "none")


def test_what_there_is_to_know_about_a_run_is_written_too(tmp_path: Path) -> None:
    write([], tmp_path / "family.json", quick=True)
    assert json.loads((tmp_path / "family.json").read_text())["quick"] is True


def test_figures_are_written_with_the_machine(tmp_path: Path) -> None:
    write([Figure(name="n", value=1.0, unit="ms", better="lower", peer=2.0)], tmp_path / "new" / "family.json")
    written = json.loads((tmp_path / "new" / "family.json").read_text())
    assert written["machine"]["cores"] >= 1
    assert written["figures"][0] == {
        "name": "n",
        "value": 1.0,
        "unit": "ms",
        "better": "lower",
        "floor": None,
        "goal": None,
        "peer": 2.0,
        "note": "",
    }


def test_a_page_says_what_is_short_of_its_goal(tmp_path: Path) -> None:
    figures = [
        Figure(name="a", value=3.0, unit="ms", better="lower", floor=4.0, goal=2.0, peer=1234.5, note="beside x"),
        Figure(name="b", value=1.0, unit="ms", better="lower", goal=2.0),
    ]
    write_table(figures, tmp_path / "page.md", "title", "a machine")
    assert (tmp_path / "page.md").read_text().splitlines()[-2:] == [
        "| a | **3 ms**, short of goal | ≤ 4 ms | ≤ 2 ms | 1234 ms | beside x |",
        "| b | 1 ms |  | ≤ 2 ms |  |  |",
    ]
