"""Every package that the code imports is asked for by name, so that an installation brings it."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
OWN = {"bluesky_jit", "sim_devices"}
DISTRIBUTIONS = packages_distributions()


def imported() -> Iterator[tuple[str, Path]]:
    for package in OWN:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    yield from ((alias.name.split(".")[0], path) for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    yield node.module.split(".")[0], path


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_is_imported_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {normalised(re.split(r"[\[<>=~! ]", line)[0]) for line in project["dependencies"]}
    missing = {
        f"{name} ({path.relative_to(ROOT)})"
        for name, path in imported()
        if name not in OWN
        and name not in sys.stdlib_module_names
        and not declared & {normalised(each) for each in DISTRIBUTIONS.get(name, [name])}
    }
    assert not missing


def test_what_is_declared_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    used = {normalised(each) for name, _ in imported() for each in DISTRIBUTIONS.get(name, [])}
    # Not imported by name: ipython starts the profile, databroker is how people read runs back.
    people = {"ipython", "databroker"}
    declared = {normalised(re.split(r"[\[<>=~! ]", line)[0]) for line in project["dependencies"]}
    assert declared - used <= people
