"""What is kept is told apart by the code that made it."""

import sys
from pathlib import Path

import pytest

from bluesky_jit.bench.provenance import code_digest

CODE = '"""Words."""\n\nLIMIT = 3\n\n\ndef double(x):\n    """Say what it does."""\n    return 2 * x\n'


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of a module that can be imported as made_up.inner."""
    package = tmp_path / "made_up"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "inner.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    return package / "inner.py"


def digest(*modules: str) -> str:
    code_digest.cache_clear()
    sys.modules.pop("made_up", None)
    return code_digest(*modules)


def test_remarks_docstrings_and_layout_do_not_matter(module: Path) -> None:
    before = digest("made_up")
    module.write_text("LIMIT = 3  # of all\ndef double(x):\n  '''Other words.'''\n  return 2*x\n")
    assert digest("made_up") == before


@pytest.mark.parametrize("change", [("LIMIT = 3", "LIMIT = 4"), ("2 * x", "x * 2")])
def test_a_number_or_a_statement_does(module: Path, change: tuple[str, str]) -> None:
    before = digest("made_up")
    module.write_text(CODE.replace(*change))
    assert digest("made_up") != before
    assert digest("made_up.inner") == digest("made_up.inner")


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="no_such_package has no code"):
        digest("no_such_package")


def test_what_learns_is_not_told_apart_by_what_it_does_not_use() -> None:
    assert code_digest("bluesky_jit.learn") != code_digest("bluesky_jit.tomo")
