"""Figures: what is short of its goal stands out, and what is written can be read back."""

import json
from pathlib import Path

import pytest

from bluesky_jit.bench.figures import Figure, write


@pytest.mark.parametrize(
    ("value", "better", "goal", "meets"),
    [(0.5, "lower", 1.0, True), (1.5, "lower", 1.0, False), (0.5, "higher", 1.0, False), (2.0, "higher", None, True)],
)
def test_a_goal_is_met_from_its_own_side(value: float, better: str, goal: float | None, meets: bool) -> None:
    assert Figure(name="n", value=value, unit="ms", better=better, goal=goal).meets_goal is meets  # type: ignore[arg-type]


def test_figures_are_written_with_the_machine(tmp_path: Path) -> None:
    write([Figure(name="n", value=1.0, unit="ms", better="lower", peer=2.0)], tmp_path / "new" / "family.json")
    written = json.loads((tmp_path / "new" / "family.json").read_text())
    assert written["machine"]["cores"] >= 1
    assert written["figures"][0] == {
        "name": "n",
        "value": 1.0,
        "unit": "ms",
        "better": "lower",
        "goal": None,
        "peer": 2.0,
        "note": "",
    }
