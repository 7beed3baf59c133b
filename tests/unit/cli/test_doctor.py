"""What `bluesky-jit doctor` shows, and a library of a check that cannot be loaded."""

import io
import sys

import pytest
from rich.console import Console

from bluesky_jit.cli.doctor import checks, show
from bluesky_jit.doctor.finding import Finding, examine, fine, problem, warning
from bluesky_jit.settings import load_settings


def shown(*found: Finding, terminal: bool = False) -> str:
    text = io.StringIO()
    colours = "standard" if terminal else None
    show(found, Console(file=text, width=40, force_terminal=terminal, color_system=colours, highlight=False))
    return text.getvalue()


def test_each_finding_is_one_line_however_narrow_the_terminal() -> None:
    long = "x" * 200
    lines = shown(fine("camera", "answers [bold]"), problem("Tiled", long)).splitlines()
    assert lines[:2] == ["fine     camera  answers [bold]", f"problem  Tiled   {long}"]


def test_problems_are_coloured_only_on_a_terminal() -> None:
    assert "\x1b[" not in shown(problem("Tiled", "away"))
    assert "\x1b[1;31mproblem" in shown(problem("Tiled", "away"), terminal=True)


@pytest.mark.parametrize(
    ("found", "last"),
    [
        ([fine("a", "b")], "all is fine"),
        ([fine("a", "b"), warning("a", "b")], "nothing must be done; 1 warning could make it better"),
        ([problem("a", "b"), problem("a", "b")], "2 problems and 0 warnings: see to the problems first"),
    ],
)
def test_the_last_line_sums_up(found: list[Finding], last: str) -> None:
    assert shown(*found).splitlines()[-2:] == ["", last]


def test_a_library_that_cannot_be_loaded_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bluesky_jit.doctor.images", raising=False)
    monkeypatch.setitem(sys.modules, "p4p", None)
    [check] = [check for check in checks(load_settings(environment={})) if check.subject == "pvAccess"]
    [found] = examine([check])
    assert (found.verdict, "could not be checked (ModuleNotFoundError: " in found.text) == ("problem", True)
