"""Which code made a figure: what is kept from an earlier run is of use only while the code behind it is the same."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

DIGITS = 12
"""Of the digest: enough that two states of the code are never taken for one."""


@cache
def code_digest(*modules: str) -> str:
    """Return a digest of the code of modules and of all modules in packages; remarks and layout do not matter."""
    digest = hashlib.sha256()
    for module in modules:
        for path in _files(module):
            digest.update(ast.dump(_without_words(ast.parse(path.read_bytes()))).encode())
    return digest.hexdigest()[:DIGITS]


def _files(module: str) -> Iterable[Path]:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"{module} has no code that could be looked at: is it installed?")
    return sorted(Path(spec.origin).parent.rglob("*.py")) if spec.submodule_search_locations else [Path(spec.origin)]


def _without_words(tree: ast.Module) -> ast.Module:
    """Return the tree without texts that stand alone, such as docstrings."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
    return tree


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
