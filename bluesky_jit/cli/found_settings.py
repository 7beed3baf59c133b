"""Settings files that nobody named, and stored scans that say otherwise."""

from __future__ import annotations

import logging
import math
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bluesky_jit.settings import Settings

logger = logging.getLogger(__name__)

Sections = Mapping[str, Mapping[str, Any]]
ALIKE = 1e-3
"""Part by which lengths may differ that were written down with few digits."""


def beneath(found: Path, defaults: Sections) -> dict[str, dict[str, Any]]:
    """Return defaults with what a settings file says instead, but for a set-up that contradicts theirs.

    found: a file that nobody named, such as that of a beamline simulated in this folder; it fits.
    """
    sections: dict[str, dict[str, Any]] = tomllib.loads(found.read_text())
    theirs, said = sections.get("geometry", {}), defaults.get("geometry", {})
    others = [name for name, value in said.items() if name in theirs and not _alike(theirs[name], value)]
    if others:
        logger.warning(
            "%s, which nobody named, is of another set-up than the scan: %s; its [geometry] is left out (if it is "
            "right, name it with --settings)",
            found,
            ", ".join(f"{name} {theirs[name]} instead of {said[name]}" for name in others),
        )
        del sections["geometry"]
    names = {**defaults, **sections}
    return {name: {**defaults.get(name, {}), **sections.get(name, {})} for name in names}


def contradictions(said: Sections, settings: Settings) -> Iterator[str]:
    """Yield where settings count against what a scan says of itself."""
    for section, values in said.items():
        for name, value in values.items():
            used = getattr(getattr(settings, section), name)
            if not _alike(used, value):
                yield f"it says that {section}.{name} is {value}, and the settings {used}: the settings count"


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=ALIKE)
    return one == other
