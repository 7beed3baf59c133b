"""Say in plain sentences what limits a result: its darks, its flats and the arc that was measured."""

from __future__ import annotations

import numpy as np

from bluesky_jit.tomo.arcs import Arc
from bluesky_jit.tomo.corrections.air import UNLIKE
from bluesky_jit.tomo.corrections.darkflat import DarkFlat
from bluesky_jit.tomo.prepare import Found

WORTH_SAYING = 0.01
"""Part of the pixels, dead or full in the flats, from which on people are told: more than a detector's usual faults.
Also the change of the beam, as part of it, from which on attenuation is off by more than noise is, in most scans."""
MANY_ZINGERS = 1e-3
"""Part of a frame's pixels that are zingers at most: beside radiation sources a few hundred in a million are usual."""
TOLD = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""What changes with every frame is told in these steps, once each."""


def limits(
    dark_flat: DarkFlat,
    found: Found,
    arc: Arc,
    n_projections: int,
    *,
    quantitative: bool,
    clipped_fraction: float,
    axis_tilt_rad: float,
) -> tuple[str, ...]:
    """Return a sentence for each limit: what it is, how much, and what to do; none where there are no flats yet.

    clipped_fraction: of the projections' pixels, those too dark or too bright to measure.
    """
    if not dark_flat.ready:
        return ()
    texts = (
        _no_darks(dark_flat, n_projections),
        _dead(dark_flat),
        _saturated(dark_flat),
        _clipped(clipped_fraction),
        _flat_drift(dark_flat),
        _beam_drift(found),
        _obstructed(found),
        _many_zingers(dark_flat, found),
        "" if quantitative else _part_of_the_arc(arc, n_projections),
        _tilted_axis(axis_tilt_rad),
    )
    return tuple(text for text in texts if text)


def time_frames_limit(arc: Arc, n_frames: int, *, short_scan: bool) -> str:
    """Say that part of a turn has no time frames; nothing where that is not so.

    Its lines are weighted for this one arc: a window that ends earlier lacks those that are measured at the end.
    """
    if n_frames == 1 or not short_scan:
        return ""
    return (
        f"the projections cover {np.rad2deg(arc.length_rad):.0f}° of {np.rad2deg(arc.period_rad):.0f}°, which is one "
        f"window and gives no {n_frames} time frames: choose a preset without time frames (learn.preset), or turn on"
    )


def _no_darks(dark_flat: DarkFlat, n_projections: int) -> str:
    if not (dark_flat.assumes_no_dark and n_projections):
        return ""
    return (
        "no darks came, so a dark of 0 counts is assumed and attenuation is too low: take darks, which are frames "
        "with the shutter closed"
    )


def _dead(dark_flat: DarkFlat) -> str:
    n_v, n_u = dark_flat.shape
    part = dark_flat.dead_pixels / (n_v * n_u)
    if part <= WORTH_SAYING:
        return ""
    return (
        f"{dark_flat.dead_pixels} of {n_v * n_u} pixels ({part:.1%}) are dead in the flats and interpolated from their "
        "rows: look at a flat for shadows, take them away, and take flats again"
    )


def _saturated(dark_flat: DarkFlat) -> str:
    if dark_flat.saturated_flats <= WORTH_SAYING:
        return ""
    return (
        f"{dark_flat.saturated_flats:.1%} of the flats' pixels are saturated, and attenuation is too low there: take a "
        "shorter exposure or less beam, and scan again with new flats"
    )


def _clipped(fraction: float) -> str:
    reached = [step for step in TOLD if fraction >= step]
    if not reached:
        return ""
    return (
        f"{reached[-1]:.0%} of the projections' pixels or more are too dark or too bright to measure, and attenuation "
        "is too low there: expose longer if the shadow is black, shorter if the air is full"
    )


def _flat_drift(dark_flat: DarkFlat) -> str:
    drift = dark_flat.flat_drift
    if abs(drift) < WORTH_SAYING:
        return ""
    return (
        f"the beam changed by {drift:+.1%} from the first flats to the others: projections between are compared with "
        "flats interpolated in time; for changes faster than that set tomo.air_columns"
    )


def _beam_drift(found: Found) -> str:
    reached = [step for step in TOLD if abs(found.most_drift) >= step]
    if not reached:
        return ""
    return (
        f"the beam has been {'above' if found.most_drift > 0 else 'below'} the flats by {reached[-1]:.0%} or more: it "
        "is corrected frame by frame (tomo.air_columns); take new flats if it goes on"
    )


def _obstructed(found: Found) -> str:
    if not found.obstructed:
        return ""
    return (
        f"in some frames the air at the left and the right differs by more than {UNLIKE:.0%}: the darker side is not "
        "used; set tomo.air_columns to fewer columns if the sample or its holder reaches into them"
    )


def _many_zingers(dark_flat: DarkFlat, found: Found) -> str:
    n_v, n_u = dark_flat.shape
    if found.zingers_per_frame <= MANY_ZINGERS * n_v * n_u:
        return ""
    return (
        f"more than {MANY_ZINGERS:.1%} of the pixels are replaced as zingers, which is many: raise "
        "tomo.zinger_threshold if the sample's detail suffers, or look for stray radiation"
    )


def _part_of_the_arc(arc: Arc, n_projections: int) -> str:
    if arc.closed or not n_projections:
        return ""
    return (
        f"the projections cover only {np.rad2deg(arc.length_rad):.0f}° of {np.rad2deg(arc.period_rad):.0f}°: "
        f"attenuation is too low by about {1 - arc.part:.0%}; measure the whole arc for true values"
    )


def _tilted_axis(tilt_rad: float) -> str:
    if not tilt_rad:
        return ""
    # No plane of frequencies square to a ray comes nearer to the axis than the tilt.
    return (
        f"the rotation axis is tilted by {np.rad2deg(abs(tilt_rad)):.3g}°: directions within that of the axis, "
        f"{1 - np.cos(tilt_rad):.2g} of all, are not measured (the missing cone), so that flat layers square to the "
        "axis fade and values are too low: compare values within the volume only, or turn the sample about an upright "
        "axis for true ones"
    )
