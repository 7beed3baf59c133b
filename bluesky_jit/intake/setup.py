"""Say how a run is to be reconstructed: by its metadata, and by the settings where the run is silent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from bluesky_jit.intake.calibration_file import read_calibration
from bluesky_jit.settings_sections import GeometrySettings, TomoSettings
from bluesky_jit.tomo.arcs import SEAM_RAD
from bluesky_jit.tomo.calibration import Calibration, calibration_from_metadata
from bluesky_jit.tomo.corrections.wanted import Corrections
from bluesky_jit.tomo.geometry import KINDS, Geometry

WHAT_IT_IS = ("kind", "n_u", "n_v", "calibration", "extended_field")
"""Fields of a geometry that are no lengths or angles."""
ANY_NUMBER = 360
"""Projections in a turn of a run that brings none."""


def geometry_of(tomo: Mapping[str, Any], settings: GeometrySettings, frame_shape: tuple[int, int]) -> Geometry:
    """Return the geometry of a run whose frames have `frame_shape` (n_v, n_u); the message names what is missing."""
    kind = tomo.get("geometry") or settings.kind
    if kind not in tuple(KINDS):
        raise ValueError(f"tomo.geometry is {kind!r}: give one of {', '.join(KINDS)}")
    names = [field.name for field in fields(KINDS[kind]) if field.name not in WHAT_IT_IS]
    values = {name: getattr(settings, name) if tomo.get(name) is None else tomo[name] for name in names}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        raise ValueError(
            f"the run cannot be reconstructed without {', '.join(missing)}: give them in the run's `tomo` metadata "
            f"or in the settings ({', '.join(f'geometry.{name}' for name in missing)})"
        )
    numbers: dict[str, Any] = {name: _number(name, value) for name, value in values.items()}
    extended = tomo.get("extended_field")
    n_v, n_u = frame_shape
    return KINDS[kind](
        n_u=n_u,
        n_v=n_v,
        extended_field=settings.extended_field if extended is None else bool(extended),
        calibration=_calibration_of(tomo, settings),
        **numbers,
    )


def tomo_block(settings: GeometrySettings) -> dict[str, Any]:
    """Return what a start document's `tomo` block says of the set-up that the settings describe."""
    block: dict[str, Any] = {"geometry" if name == "kind" else name: value for name, value in asdict(settings).items()}
    del block["calibration_file"]
    calibration = read_calibration(settings.calibration_file) if settings.calibration_file else None
    # The measured numbers themselves: nobody need find the file again.
    return {**block, "calibration": calibration and calibration.to_metadata()}


def _calibration_of(tomo: Mapping[str, Any], settings: GeometrySettings) -> Calibration | None:
    recorded = tomo.get("calibration")
    if recorded is None:
        return read_calibration(settings.calibration_file) if settings.calibration_file else None
    if not isinstance(recorded, Mapping):
        raise ValueError(f"tomo.calibration is {recorded!r}: give lists of angles_rad and of shifts in mm")
    return calibration_from_metadata(recorded)


def angles_per_turn_of(tomo: Mapping[str, Any], setting: int | None) -> int:
    """Return how many projections make a turn."""
    n = tomo.get("n_angles_per_rotation") or setting
    if not n and tomo.get("darks_and_flats_only"):
        return ANY_NUMBER
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


def window_length_of(
    turns: float, angles_per_turn: int, period_rad: float, mode: str, planned_arc_rad: float | None
) -> int:
    """Return how many projections the window spans; whole turns are turns after which lines repeat.

    planned_arc_rad: what the run is to cover, if known. A scan of less than that may have a window as short; a run that
    goes on beyond such a window would never have a slice.
    """
    arc_rad = turns * 2 * math.pi
    fits = planned_arc_rad is not None and planned_arc_rad <= arc_rad * (1 + 1e-6)
    if arc_rad < period_rad - SEAM_RAD and not fits:
        least, repeats = (0.5, "half a turn") if period_rad < 2 * math.pi else (1, "a turn")
        planned = "is not known" if planned_arc_rad is None else f"is {planned_arc_rad / (2 * math.pi):.3g} turns"
        raise ValueError(
            f"tomo.turns is {turns:g}, lines repeat after {repeats} in this set-up, and what the run covers {planned}: "
            f"a window of less than both gives no slices; set tomo.turns to {least:g} or more"
        )
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
