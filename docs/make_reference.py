"""Write the reference pages that are made from the code; `make docs` runs this."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bluesky_jit import settings, settings_sections
from bluesky_jit.learn.presets import PRESETS, Preset, Recipe
from bluesky_jit.publish import table

REFERENCE = Path(__file__).parent / "reference"
PREFIX = settings.Settings().epics.prefix

SETTINGS_HEAD = f"""\
# Settings

Made from `bluesky_jit/settings_sections.py` by `make docs`; do not edit.

A setting has its default unless a TOML file, the environment or a keyword says otherwise; the later of these wins.

| where | how |
|---|---|
| TOML file | a section and a key: `[learn]` and `preset = "fast"`. The file is the one that `--settings`, `load_settings("…")` or the variable `{settings.ENVIRONMENT_PREFIX}SETTINGS` names. |
| environment | `{settings.ENVIRONMENT_PREFIX}LEARN__PRESET=fast` |
| command line | `--set learn.preset=fast` |
| Python | `load_settings(learn={{"preset": "fast"}})` |

A name or value that does not fit is refused, with a message that says what would.
"""  # noqa: E501 - a table's row is one line

PRESETS_HEAD = """\
# Presets

Made from `bluesky_jit/learn/presets.py` by `make docs`; do not edit.

A preset is a network with the recipe that trains it: one word, `learn.preset`.
[Choose a preset](../how-to/choose-a-preset.md) says which to take,
[Networks](../explanations/learning.md#networks) what they are made of.

* *Input*: points along a patch's sides × slices × time frames. The patch is what it is trained on (`learn.patch`
  changes it); any slice can be denoised.
* *Features*: of the first convolution. *Parameters*: numbers that are learnt.
* *bfloat16*: where the processor computes with it natively.
* *Sees*: the slice less its median, in units of the noise; or the slice as it is, in 1/mm.

| preset | input | features | parameters | sees | recipe |
|---|---|---|---|---|---|
"""


class Setting(NamedTuple):
    """Describe one setting as its source does."""

    section: str
    name: str
    type: str
    default: str
    text: str


def all_settings() -> Iterator[tuple[str, str, list[Setting]]]:
    """Yield each section's name, what it is about, and its settings."""
    sources = (ast.parse(inspect.getsource(module)) for module in (settings, settings_sections))
    classes = {node.name: node for tree in sources for node in tree.body if isinstance(node, ast.ClassDef)}
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


def presets_page() -> str:
    """Return docs/reference/presets.md."""
    return PRESETS_HEAD + "".join(_preset_row(preset) for preset in PRESETS.values())


def _preset_row(preset: Preset) -> str:
    size = f"{preset.patch}×{preset.patch}×{preset.depth}×{preset.frames}"
    if preset.network is None:
        return f"| `{preset.name}` | {size} | – | 1 | 1/mm | no network: its weight is found on the pairs |\n"
    weights = list(preset.build().parameters())
    parameters = f"{sum(weight.numel() for weight in weights):,}".replace(",", " ")
    sees = "units of the noise" if preset.normalisation == "noise" else "1/mm"
    return f"| `{preset.name}` | {size} | {weights[0].shape[0]} | {parameters} | {sees} | {_recipe(preset.recipe)} |\n"


def _recipe(recipe: Recipe) -> str:
    """Return a recipe as people read it."""
    first, second = recipe.betas
    parts = [f"Adam {recipe.learning_rate:g}, β ({first:g}, {second:g})"]
    if recipe.warm_up_steps:
        parts.append(f"warm-up of {recipe.warm_up_steps} steps")
    if recipe.average_decay:
        parts.append(f"weights averaged with {recipe.average_decay:g}")
    if recipe.bfloat16:
        parts.append("bfloat16 gradients")
    return ", ".join(parts)


def pages() -> dict[Path, str]:
    """Return every generated page by its path."""
    return {
        REFERENCE / "settings.md": settings_page(),
        REFERENCE / "pvs.md": table.markdown(PREFIX),
        REFERENCE / "presets.md": presets_page(),
    }


def main() -> None:
    """Write the pages."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path.relative_to(Path.cwd())}\n" if path.is_relative_to(Path.cwd()) else f"{path}\n")


if __name__ == "__main__":
    main()
