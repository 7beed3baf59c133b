"""Take the rows that tell where the axis is out of a window of raw counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from bluesky_jit.tomo.axis.estimate import AxisEstimate, estimate_axis, no_estimate
from bluesky_jit.tomo.corrections.darkflat import DarkFlat
from bluesky_jit.tomo.corrections.transmission import Reference, attenuation
from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.jobs import Kernel
from bluesky_jit.tomo.prepare import FrameInfo
from bluesky_jit.tomo.window import Window

BANDS = 4
BAND_ROWS = 4
"""Bands of rows, and rows in each, whose line integrals are averaged: enough for a thousand photons a pixel, and one
part in forty of the work that a whole detector of 650 rows would be."""
CONE_ROWS = 3
"""Rows on each side of the plane of the central ray: further off, an opposing ray passes more than a pixel higher."""


def estimate_from_window(window: Window, dark_flat: DarkFlat, geometry: Geometry, kernel: Kernel) -> AxisEstimate:
    """Estimate the axis from the raw counts of a window; any thread may ask."""
    view = window.view
    if not (dark_flat.ready and len(view)):
        return no_estimate("there are no projections, or no flats, yet")
    # The thread that pushes keeps its own place among the flats.
    flats = dark_flat.copy()
    bands = bands_of(geometry)
    counts = [window.counts_of(view, band) for band in bands]
    frames = (
        (FrameInfo(angle_rad=angle, acquisition=acquisition, time_s=time_s), [band[n] for band in counts])
        for n, (angle, acquisition, time_s) in enumerate(
            zip(view.angles_rad.tolist(), view.acquisition.tolist(), view.frame_times_s.tolist(), strict=True)
        )
    )
    rows = band_rows(frames, flats, bands)
    if not window.intact(view):
        return no_estimate("projections came faster than their rows could be read")
    return estimate_axis(rows, view.angles_rad, geometry, kernel=kernel)


def bands_of(geometry: Geometry) -> tuple[slice, ...]:
    """Return the bands of rows to look at: all over a parallel beam, near the central ray's plane in a cone.

    A detector that leans is looked at in the middle only, where it leans least.
    """
    if geometry.kind == "parallel" and not geometry.needs_resampling:
        edges = np.linspace(0, geometry.n_v, min(BANDS, geometry.n_v) + 1)
        rows = min(BAND_ROWS, max(1, geometry.n_v // BANDS))
        starts = (int((low + high - rows) / 2) for low, high in pairwise(edges))
        return tuple(slice(start, start + rows) for start in starts)
    first = max(0, int(np.ceil(geometry.v_centre - CONE_ROWS)))
    last = min(geometry.n_v - 1, int(np.floor(geometry.v_centre + CONE_ROWS)))
    return (slice(first, last + 1),)


def band_rows(
    frames: Iterable[tuple[FrameInfo, Sequence[np.ndarray]]], flats: DarkFlat, bands: Sequence[slice]
) -> np.ndarray:
    """Return the mean line integrals of bands of rows, float64 (n_bands, n, n_u), of n frames.

    Of each frame it takes the raw counts of every band, (n_rows, n_u) each.
    """
    whole: Reference | None = None
    parts: list[Reference] = []
    means = []
    for info, counts in frames:
        reference = flats.reference_at(time_s=info.time_s, acquisition=info.acquisition)
        if reference is not whole:
            whole, parts = reference, [rows_of(reference, band) for band in bands]
        means.append([attenuation(rows, part)[0].mean(axis=0) for rows, part in zip(counts, parts, strict=True)])
    return np.array(means, dtype=np.float64).swapaxes(0, 1)


def rows_of(reference: Reference, band: slice) -> Reference:
    """Return what a band of rows is compared with; dead pixels are made up from their own rows, as in the whole."""
    n_u = reference.dark.shape[1]
    first, last = band.start * n_u, band.stop * n_u
    inside = (reference.dead >= first) & (reference.dead < last)
    return replace(
        reference,
        dark=reference.dark[band],
        gain=reference.gain[band],
        dead=reference.dead[inside] - first,
        left=reference.left[inside] - first,
        right=reference.right[inside] - first,
        left_weight=reference.left_weight[inside],
        right_weight=reference.right_weight[inside],
    )
