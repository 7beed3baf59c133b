"""Read the shifts that a beamline measured angle by angle."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from bluesky_jit.tomo.calibration import SHIFTS, Calibration

ANGLES = {"angle_deg": np.pi / 180, "angle_rad": 1.0}


def read_calibration(path: str | Path) -> Calibration:
    """Read a CSV file whose first line names its columns; lines that begin with # are remarks."""
    path = Path(path).expanduser()
    rows = csv.DictReader(_lines(path), skipinitialspace=True)
    rows.fieldnames = names = [name.strip() for name in rows.fieldnames or ()]
    angles = [name for name in names if name in ANGLES]
    if len(angles) != 1 or len(set(names)) < len(names) or not {*names} <= {*ANGLES, *SHIFTS}:
        raise ValueError(
            f"calibration file {path} has columns {', '.join(names) or 'of no name'}: give angle_deg or angle_rad, and "
            f"any of {', '.join(SHIFTS)}, each once"
        )
    columns: dict[str, list[float]] = {name: [] for name in names}
    for n, row in enumerate(rows, 1):
        for name in names:
            try:
                columns[name].append(float(row[name]))
            except (TypeError, ValueError):
                raise ValueError(
                    f"calibration file {path}: {name} is {row[name]!r} in data line {n}: give a number"
                ) from None
    (angle,) = angles
    angles_rad = tuple(value * ANGLES[angle] for value in columns.pop(angle))
    try:
        return Calibration(angles_rad=angles_rad, **{name: tuple(values) for name, values in columns.items()})
    except ValueError as error:
        raise ValueError(f"calibration file {path}: {error}") from error


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"calibration file {path} cannot be read ({error}): check geometry.calibration_file"
        ) from error
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
