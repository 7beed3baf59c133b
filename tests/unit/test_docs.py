"""The documents say what the code says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from bluesky_jit.cli.main import main

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def make_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, made as code hosts make them."""
    headings = HEADING.findall(CODE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_generated_pages_are_up_to_date(make_reference: ModuleType) -> None:
    for path, text in make_reference.pages().items():
        assert path.read_text() == text, f"{path.name} is out of date: run `make docs`"


def test_every_setting_says_what_it_is(make_reference: ModuleType) -> None:
    silent = [
        f"{s.section}.{s.name}" for _, _, found in make_reference.all_settings() for s in found if not s.text.strip()
    ]
    assert not silent, f"write a docstring under each of these in settings_sections.py: {', '.join(silent)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(CODE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_page_is_reached_from_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in LINK.findall(index.read_text())}
    missing = [str(page.relative_to(ROOT)) for page in PAGES if page.parent != ROOT and page != index]
    missing = [name for name in missing if (ROOT / name) not in linked]
    assert not missing, f"link these in docs/README.md: {', '.join(missing)}"


@pytest.mark.parametrize("command", ["demo", "sim", "serve", "doctor", "replay", "reconstruct", "bench"])
def test_the_reference_names_every_option_of_a_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    options = set(re.findall(r"--[a-z]+", capsys.readouterr().out)) - {"--help", "--experiment"}

    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    _, _, section = page.partition(f"## bluesky-jit {command}\n")
    described = section.partition("\n## ")[0]
    assert not {option for option in options if option not in described}


def test_the_reference_has_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    commands = re.findall(r"^    ([a-z]+) ", capsys.readouterr().out, re.MULTILINE)

    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    assert commands
    assert not [command for command in commands if f"## bluesky-jit {command}\n" not in page]


def test_the_readme_shows_the_script_that_the_tutorial_is_tested_with() -> None:
    scripts = [
        re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)[0]
        for page in (ROOT / "README.md", ROOT / "docs" / "tutorials" / "your-own-script.md")
    ]
    assert scripts[0] == scripts[1]


def test_the_tests_that_cause_faults_are_there() -> None:
    page = (ROOT / "docs" / "explanations" / "faults.md").read_text()
    named = re.findall(r"`([a-z_/]+\.py)::(test_\w+)`", page)
    assert len(named) > 20
    for path, test in named:
        assert f"def {test}(" in (ROOT / "tests" / path).read_text(), f"{path} has no {test}"
