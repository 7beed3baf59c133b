"""Say in plain sentences what limits a result: its darks, its flats and the arc that was measured."""

from __future__ import annotations

import numpy as np

from bluesky_jit.tomo.darkflat import DarkFlat
from bluesky_jit.tomo.weights import Arc

WORTH_SAYING = 0.01
"""Part of the pixels, dead or full in the flats, from which on people are told: more than a detector's usual faults."""


def limits(dark_flat: DarkFlat, arc: Arc, n_projections: int, *, quantitative: bool) -> tuple[str, ...]:
    """Return a sentence for each limit: what it is, how much, and what to do; none where there are no flats yet."""
    if not dark_flat.ready:
        return ()
    texts = (
        _no_darks(dark_flat, n_projections),
        _dead(dark_flat),
        _saturated(dark_flat),
        "" if quantitative else _part_of_the_arc(arc, n_projections),
    )
    return tuple(text for text in texts if text)


def _no_darks(dark_flat: DarkFlat, n_projections: int) -> str:
    if not (dark_flat.assumes_no_dark and n_projections):
        return ""
    return (
        "no darks came, so a dark of 0 counts is assumed and attenuation is too low: take darks with the shutter "
        "closed (tomo_scan(darks=10))"
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


def _part_of_the_arc(arc: Arc, n_projections: int) -> str:
    if arc.closed or not n_projections:
        return ""
    return (
        f"the projections cover only {np.rad2deg(arc.length_rad):.0f}° of {np.rad2deg(arc.period_rad):.0f}°: "
        f"attenuation is too low by about {1 - arc.part:.0%}; measure the whole arc for true values"
    )
