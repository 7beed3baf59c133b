"""Write the reference pages that are made from the code; `make docs` runs this."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bluesky_jit import settings
from bluesky_jit.publish import table

REFERENCE = Path(__file__).parent / "reference"
PREFIX = settings.Settings().epics.prefix

SETTINGS_HEAD = f"""\
# Settings

Made from `bluesky_jit/settings.py` by `make docs`; do not edit.

A setting has its default unless a TOML file, the environment or a keyword says otherwise; the later of these wins.

| where | how |
|---|---|
| TOML file | a section and a key: `[learn]` and `preset = "fast"`. The file is the one that `--settings`, `load_settings("…")` or the variable `{settings.ENVIRONMENT_PREFIX}SETTINGS` names. |
| environment | `{settings.ENVIRONMENT_PREFIX}LEARN__PRESET=fast` |
| command line | `--set learn.preset=fast` |
| Python | `load_settings(learn={{"preset": "fast"}})` |

A name or value that does not fit is refused, with a message that says what would.
"""  # noqa: E501 - a table's row is one line


class Setting(NamedTuple):
    """Describe one setting as its source does."""

    section: str
    name: str
    type: str
    default: str
    text: str


def all_settings() -> Iterator[tuple[str, str, list[Setting]]]:
    """Yield each section's name, what it is about, and its settings."""
    tree = ast.parse(inspect.getsource(settings))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for place in classes["Settings"].body:
        if isinstance(place, ast.AnnAssign):
            section = ast.unparse(place.target)
            described = classes[ast.unparse(place.annotation)]
            yield section, ast.get_docstring(described) or "", _settings_of(section, described)


def _settings_of(section: str, described: ast.ClassDef) -> list[Setting]:
    found = []
    for node, following in zip(described.body, [*described.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign):
            continue
        text = following.value.value if _is_text(following) else ""  # type: ignore[union-attr]
        default = "" if node.value is None else ast.unparse(_default(node.value))
        name = ast.unparse(node.target)
        found.append(Setting(section, name, ast.unparse(node.annotation), default, " ".join(text.split())))
    return found


def _default(value: ast.expr) -> ast.expr:
    """Return the default itself, where it is written as `field(default=…, …)`."""
    keywords = {keyword.arg: keyword.value for keyword in value.keywords} if isinstance(value, ast.Call) else {}
    return keywords.get("default", value)


def _is_text(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def settings_page() -> str:
    """Return docs/reference/settings.md."""
    parts = [SETTINGS_HEAD]
    for section, about, found in all_settings():
        head = ["| setting | type | default | what it is |", "|---|---|---|---|"]
        rows = [f"| `{s.name}` | {_type(s.type)} | `{s.default}` | {s.text} |" for s in found]
        parts.append("\n".join([f"## {section}", "", about, "", *head, *rows, ""]))
    return "\n".join(parts)


def _type(text: str) -> str:
    """Return a type as people read it: the values of a choice, `or none`."""
    text = text.removesuffix("]").replace("Literal[", "") if text.startswith("Literal[") else text
    return text.replace(" | None", ", or none").replace("'", "`")


def pages() -> dict[Path, str]:
    """Return every generated page by its path."""
    return {REFERENCE / "settings.md": settings_page(), REFERENCE / "pvs.md": table.markdown(PREFIX)}


def main() -> None:
    """Write the pages."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path.relative_to(Path.cwd())}\n" if path.is_relative_to(Path.cwd()) else f"{path}\n")


if __name__ == "__main__":
    main()
