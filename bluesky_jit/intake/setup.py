"""Say how a run is to be reconstructed: by its metadata, and by the settings where the run is silent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bluesky_jit.settings import GeometrySettings, TomoSettings
from bluesky_jit.tomo.corrections import Corrections
from bluesky_jit.tomo.geometry import ConeGeometry, Geometry, ParallelGeometry

KINDS = ("cone", "parallel")


def geometry_of(tomo: Mapping[str, Any], settings: GeometrySettings, frame_shape: tuple[int, int]) -> Geometry:
    """Return the geometry of a run whose frames have `frame_shape` (n_v, n_u); the message names what is missing."""
    kind = tomo.get("geometry") or settings.kind
    if kind not in KINDS:
        raise ValueError(f"tomo.geometry is {kind!r}: give one of {', '.join(KINDS)}")
    needed = ("pixel_mm",) if kind == "parallel" else ("pixel_mm", "source_axis_mm", "source_detector_mm")
    values = {name: tomo.get(name) if tomo.get(name) is not None else getattr(settings, name) for name in needed}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        raise ValueError(
            f"the run cannot be reconstructed without {', '.join(missing)}: give them in the run's `tomo` metadata "
            f"or in the settings ({', '.join(f'geometry.{name}' for name in missing)})"
        )
    offset = tomo.get("axis_offset_mm")
    numbers = {name: _number(name, value) for name, value in values.items()}
    n_v, n_u = frame_shape
    offset_mm = _number("axis_offset_mm", settings.axis_offset_mm if offset is None else offset)
    shared = {"n_u": n_u, "n_v": n_v, "axis_offset_mm": offset_mm}
    return ConeGeometry(**shared, **numbers) if kind == "cone" else ParallelGeometry(**shared, **numbers)  # type: ignore[arg-type]


def angles_per_turn_of(tomo: Mapping[str, Any], setting: int | None) -> int:
    """Return how many projections make a turn."""
    n = tomo.get("n_angles_per_rotation") or setting
    if not n or not _number("n_angles_per_rotation", n) >= 2:
        raise ValueError(
            f"the run gives {n!r} angles a turn: give tomo.n_angles_per_rotation (2 or more) in its metadata "
            "or set tomo.angles_per_turn"
        )
    return int(n)


def corrections_of(tomo: Mapping[str, Any], settings: TomoSettings, *, ring_projections: int) -> Corrections:
    """Return what is corrected in a run's frames; ring_projections: as many as show rings from all sides."""
    energy = tomo.get("energy_kev")
    return Corrections(
        zinger_threshold=settings.zinger_threshold,
        air_columns=settings.air_columns,
        delta_beta=settings.delta_beta,
        energy_kev=settings.energy_kev if energy is None else _number("energy_kev", energy),
        propagation_mm=settings.propagation_mm,
        hardening=settings.hardening,
        ring_width=settings.ring_width,
        ring_projections=ring_projections if settings.ring_width else 0,
    )


def planned_arc_rad_of(tomo: Mapping[str, Any], angles_per_turn: int, expected_projections: int | None) -> float | None:
    """Return the arc that a run is to cover in one go; None when it does not say, or takes its angles out of order."""
    if not expected_projections or (tomo.get("scan_mode") or "sequential") != "sequential":
        return None
    return 2 * math.pi * expected_projections / angles_per_turn


def window_length_of(turns: float, angles_per_turn: int, period_rad: float, mode: str) -> int:
    """Return how many projections the window spans; whole turns are turns after which lines repeat."""
    arcs = turns * 2 * math.pi / period_rad
    if mode == "whole-turns" and (abs(arcs - round(arcs)) > 1e-6 or round(arcs) < 1):
        unit = "half turns" if period_rad < 2 * math.pi else "turns"
        raise ValueError(
            f"tomo.turns is {turns:g} and tomo.window 'whole-turns': give a whole number of {unit}, or set tomo.window "
            "to 'sliding'"
        )
    return round(turns * angles_per_turn)


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"tomo.{name} is {value!r} in the run's metadata: give a number") from None
