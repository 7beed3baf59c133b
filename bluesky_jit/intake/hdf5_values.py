"""Read what an HDF5 file says of a set-up: numbers with their units, where they are any use."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bluesky_jit.intake.dialects import ANGLE_SCALES

LENGTHS_MM: Mapping[str, float] = {
    "m": 1e3,
    "metre": 1e3,
    "meter": 1e3,
    "cm": 10.0,
    "mm": 1.0,
    "um": 1e-3,
    "µm": 1e-3,
    "μm": 1e-3,
    "micron": 1e-3,
    "microns": 1e-3,
    "micrometer": 1e-3,
    "micrometre": 1e-3,
    "nm": 1e-6,
}
ENERGIES_KEV: Mapping[str, float] = {"ev": 1e-3, "kev": 1.0, "mev": 1e3}
TIMES_S: Mapping[str, float] = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6}


def open_file(path: Path) -> h5py.File:
    """Open a file to read; raise FileNotFoundError, or ValueError for what is no whole HDF5 file."""
    try:
        return h5py.File(path, "r", locking=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist: check the path") from None
    except OSError as error:
        if wanted := re.search(r"truncated file.*stored_eof = (\d+)", str(error)):
            raise ValueError(
                f"{path} is cut off ({path.stat().st_size} of {wanted[1]} bytes): copy it again"
            ) from error
        raise ValueError(f"{path} is no HDF5 file: {error}") from error


def quantity(
    file: h5py.File, names: Iterable[str], units: Mapping[str, float], *, default: str = "", signed: bool = False
) -> float | None:
    """Return the first of some numbers that is there and means something, in the unit whose factor is 1.

    default: the unit of one that gives none; without it such a number is left out, as are zeros, NaN and unknown units.
    A list counts by its first item.
    """
    for name in names:
        node = file.get(name)
        if not isinstance(node, h5py.Dataset) or node.dtype.kind not in "iuf" or not node.size:
            continue
        factor = units.get(_unit(node) or default)
        value = float(np.ravel(node[()])[0])
        if factor is not None and math.isfinite(value) and (value > 0 or (signed and value)):
            return value * factor
    return None


def text(file: h5py.File, name: str) -> str:
    """Return a text, or nothing where there is none."""
    node = file.get(name)
    if not isinstance(node, h5py.Dataset) or not node.size:
        return ""
    value: Any = np.ravel(node[()])[0]
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def angles_rad(dataset: h5py.Dataset) -> np.ndarray:
    """Return angles (n,); in degrees unless the dataset says otherwise."""
    scale = ANGLE_SCALES.get(_unit(dataset), ANGLE_SCALES["deg"])
    try:
        return np.asarray(dataset[()], dtype=np.float64).ravel() * scale
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{dataset.name} of {dataset.file.filename} holds no angles ({error}): numbers are wanted"
        ) from error


def settings_of(**sections: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return sections of settings without what is None."""
    found = {name: {key: value for key, value in each.items() if value is not None} for name, each in sections.items()}
    return {name: each for name, each in found.items() if each}


def _unit(dataset: h5py.Dataset) -> str:
    unit = dataset.attrs.get("units", "")
    return (unit.decode() if isinstance(unit, bytes) else str(unit)).strip().lower()
