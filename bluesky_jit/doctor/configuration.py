"""Settings: where they come from, which of them do not fit, and whether they describe the set-up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bluesky_jit.doctor.finding import Finding, fine, problem, warning
from bluesky_jit.settings import ENVIRONMENT_PREFIX, Settings, settings_and_faults

SUBJECT = "settings"
GEOMETRY = "geometry"


def read(
    file: Path | None, environment: Mapping[str, str], changes: Mapping[str, Mapping[str, Any]]
) -> tuple[Settings, list[Finding]]:
    """Return the settings, those that do not fit left out, and what is wrong with them."""
    settings, faults = settings_and_faults(file, environment=environment, changes=changes)
    if faults:
        return settings, [problem(SUBJECT, fault) for fault in faults]
    path = file or environment.get(ENVIRONMENT_PREFIX + "SETTINGS")
    if path:
        return settings, [fine(SUBJECT, f"from {path}")]
    return settings, [
        warning(
            SUBJECT,
            "there is no file, so the defaults hold, which are those of a simulated beamline: give --settings, or set "
            f"{ENVIRONMENT_PREFIX}SETTINGS",
        )
    ]


def geometry(settings: Settings) -> list[Finding]:
    """Tell whether the set-up is described, or must come with each run."""
    given = settings.geometry
    wanted = ("pixel_mm",) if given.kind == "parallel" else ("pixel_mm", "source_axis_mm", "source_detector_mm")
    missing = [f"geometry.{name}" for name in wanted if getattr(given, name) is None]
    if missing:
        return [
            warning(
                GEOMETRY,
                f"{', '.join(missing)} not set: runs that do not bring them in their `tomo` block have no slices",
            )
        ]
    if given.kind == "parallel":
        return [fine(GEOMETRY, f"parallel beam, pixels of {given.pixel_mm:g} mm; a run's own comes first")]
    source_axis, source_detector = float(given.source_axis_mm or 0), float(given.source_detector_mm or 0)
    if source_axis >= source_detector:
        text = (
            f"geometry.source_axis_mm is {source_axis:g} and geometry.source_detector_mm {source_detector:g}: the "
            "detector must lie beyond the axis"
        )
        return [problem(GEOMETRY, text)]
    return [
        fine(
            GEOMETRY,
            f"cone beam, {source_axis:g} mm to the axis and {source_detector:g} mm to pixels of {given.pixel_mm:g} mm; "
            "a run's own comes first",
        )
    ]
