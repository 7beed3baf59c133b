"""Recognise tomography plans of other beamlines by their start documents, and say what these tell of the scan.

The plans run unmodified: what a `tomo` block would have said is made of what they do write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Document = Mapping[str, Any]

STEP_SCANS = ("scan", "rel_scan")
"""Bluesky's own plans whose plan_args give a motor, where it begins and ends, and how many points there are."""


def foreign_tomo(start: Document, *, named: tuple[str, ...] = (), degrees: float = 1.0) -> dict[str, Any] | None:
    """Return the `tomo` block of a known plan, or of one that is `named`; None for what is no tomography.

    degrees: how many of them are one of the plan's units, where it gives none.
    """
    args = start.get("plan_args")
    args = args if isinstance(args, Mapping) else {}
    block = next((block for read in KNOWN if (block := read(start, args)) is not None), None)
    if block is None and start.get("plan_name") in named:
        block = _step_scan(start, args, degrees)
    if block is None:
        return None
    if not block.get("darks_and_flats_only"):
        block = {**borrowed(start), **block}
    return {key: value for key, value in block.items() if value is not None}


def borrowed(start: Document) -> dict[str, Any]:
    """Return whose darks and flats a run is to use: NSLS-II HEX writes that into every run after it has taken some."""
    uid = start.get("current_dark_flat_scan_uid")
    return {"dark_flat_uid": str(uid)} if uid else {}


def _fxi_fly_scan(start: Document, args: Document) -> dict[str, Any] | None:
    """NSLS-II FXI: the stage turns at constant speed and is monitored while the camera runs free."""
    # There are several, numbered.
    if not str(start.get("plan_name")).startswith("fly_scan") or "relative_rot_angle" not in args:
        return None
    turning = (str(name) for name in start.get("motors") or () if str(name).endswith("pi_r"))
    return {
        "angle_key": next(turning, "zps_pi_r"),
        "n_angles_per_rotation": _per_turn(_product(args.get("rs"), args.get("period"))),
        # Without a start angle the scan begins wherever the stage is, which turns the sample as a whole.
        "start_deg": _number(args.get("start_angle")) or 0.0,
        "arc_deg": _number(args["relative_rot_angle"]),
        "exposure_s": _number(args.get("exposure_time")),
        "energy_kev": _number(start.get("XEng")),
    }


def _fxi_zebra_scan(start: Document, args: Document) -> dict[str, Any] | None:
    """NSLS-II FXI: a Zebra triggers the camera by the stage's encoder and records where."""
    if start.get("plan_name") != "tomo_zfly" or "slew_speed" not in args:
        return None
    first, last = _number(args.get("start_angle")), _number(args.get("end_angle"))
    return {
        "angle_key": "enc1_pi_r",
        "n_angles_per_rotation": _per_turn(_product(args["slew_speed"], args.get("acquisition_period"))),
        "start_deg": first,
        "arc_deg": None if first is None or last is None else last - first,
        "exposure_s": _number(args.get("exposure_time")),
        "energy_kev": _number(start.get("XEng")),
        # To and fro: neither even steps nor the arc of one go.
        "scan_mode": None if args.get("scan_mode") in (None, 0, "standard") else "swinging",
    }


def _hex_run(start: Document, args: Document) -> dict[str, Any] | None:
    """NSLS-II HEX: a PandA records the angle in a file of its own; darks and flats are a run of their own."""
    name = start.get("plan_name")
    if name != "tomo_flyscan":
        only = name == "tomo_dark_flat" or "tomo_scanning_mode" in start
        return {"darks_and_flats_only": True} if only else None
    n = _number(start.get("num_points"))
    return {
        "angle_key": "Angle",
        "n_angles_per_rotation": None if n is None or n < 2 else round(2 * (n - 1)),
        "assumed": "the run does not record its arc: half a turn is taken; set tomo.angles_per_turn for another",
    }


def _bluesky_tomo_plan(start: Document, args: Document) -> dict[str, Any] | None:
    """Bluesky's example of a tomography, which records no angle."""
    return {} if start.get("plan_name") == "tomo_plan" else None


def _step_scan(start: Document, args: Document, degrees: float) -> dict[str, Any]:
    """Tell what a step scan of one motor says of its steps; nothing, when it is another plan."""
    points = args.get("args")
    n = _number(args.get("num"))
    if start.get("plan_name") not in STEP_SCANS or not isinstance(points, list | tuple) or len(points) != 3:
        return {}
    first, last = _number(points[1]), _number(points[2])
    if first is None or last is None or n is None or n < 2:
        return {}
    arc_deg = (last - first) * degrees
    return {
        "n_angles_per_rotation": _per_turn(arc_deg / (n - 1)),
        "start_deg": first * degrees,
        "arc_deg": arc_deg,
        "n_projections": round(n),
    }


KNOWN: tuple[Callable[[Document, Document], dict[str, Any] | None], ...] = (
    _fxi_fly_scan,
    _fxi_zebra_scan,
    _hex_run,
    _bluesky_tomo_plan,
)


def _per_turn(step_deg: float | None) -> int | None:
    n = abs(360 / step_deg) if step_deg else 0.0
    return round(n) if n >= 2 else None


def _product(a: Any, b: Any) -> float | None:
    x, y = _number(a), _number(b)
    return None if x is None or y is None else x * y


def _number(value: Any) -> float | None:
    """Return a number, or None for what is none: profiles write "None", too."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
