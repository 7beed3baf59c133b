"""Take the projections of a window with far fewer and larger pixels, whose sums hold little noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import median_filter

from bluesky_jit.messages import FrameKind, ProjectionBlock
from bluesky_jit.tomo.corrections.darkflat import DarkFlat
from bluesky_jit.tomo.corrections.transmission import Reference
from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.window import Window

MOST_PROJECTIONS = 192
"""Projections that are read, evenly over the window: twice what a slice of 64 points across asks for (π/2 · 64)."""
MOST_ROWS = 8
"""Rows that are read of each row of large pixels: of a detector of 2000 rows a quarter, which is enough light."""
UNLIKE = 0.5
"""Part of its neighbours' beam below which a pixel is left out, and above the inverse of which."""
FULL = 65535
"""The most that uint16 holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BinnedFrames:
    """Carry frames of a detector of large pixels: a dark, a flat and projections; geometry: with that detector."""

    geometry: Geometry
    dark: ProjectionBlock
    flat: ProjectionBlock
    projections: ProjectionBlock


def binned_frames(window: Window, dark_flat: DarkFlat, geometry: Geometry, points: int) -> BinnedFrames | None:
    """Return the frames of a window as a detector of about `points` columns would have seen them; any thread may ask.

    Pixels that are dead, or were hit by a stray photon in the flats or darks, count nowhere. Returns None while there
    are no flats or no projections, or when these were overwritten meanwhile.
    """
    view = window.view
    if not (dark_flat.ready and len(view)):
        return None
    chosen = slice(None, None, max(1, len(view) // MOST_PROJECTIONS))
    times_s = view.frame_times_s[chosen]
    reference = dark_flat.copy().reference_at(
        time_s=float(np.mean(times_s)), acquisition=int(view.acquisition[len(view) // 2])
    )
    size = max(1, min(geometry.n_u // points, geometry.n_v))
    part = replace(view, slots=view.slots[chosen])
    good = _good_pixels(reference, size)
    counts = _binned(size, good, lambda rows: window.counts_of(part, rows))
    if not window.intact(view):
        return None
    dark = _binned(size, good, lambda rows: reference.dark[None, rows])
    flat = dark + _binned(size, good, lambda rows: reference.gain[None, rows])
    scale = min(1.0, FULL / max(float(counts.max()), float(flat.max())))

    def block(kind: FrameKind, frames: np.ndarray, angles_rad: np.ndarray) -> ProjectionBlock:
        numbers = np.arange(len(frames))
        return ProjectionBlock(
            run_uid="",
            kind=kind,
            counts=np.rint(frames * scale).astype(np.uint16),
            acquisition=numbers,
            unique_ids=numbers,
            frame_times_s=numbers.astype(np.float64),
            received_times_s=numbers.astype(np.float64),
            angles_rad=angles_rad,
            angle_source="same stream",
        )

    nowhere = np.full(1, np.nan)
    return BinnedFrames(
        geometry=coarser(geometry, size),
        dark=block("dark", dark, nowhere),
        flat=block("flat", flat, nowhere),
        projections=block("projection", counts, view.angles_rad[chosen]),
    )


def coarser(geometry: Geometry, size: int) -> Geometry:
    """Return the detector of which each pixel is size × size of these; what is left at its far ends is cut off."""
    n_u, n_v = geometry.n_u // size, geometry.n_v // size
    return replace(
        geometry,
        n_u=n_u,
        n_v=n_v,
        pixel_mm=size * geometry.pixel_mm,
        detector_u_mm=geometry.detector_u_mm - (geometry.n_u - n_u * size) / 2 * geometry.pixel_mm,
        detector_v_mm=geometry.detector_v_mm - (geometry.n_v - n_v * size) / 2 * geometry.pixel_mm,
    )


def _good_pixels(reference: Reference, size: int) -> np.ndarray:
    """Return which pixels, bool (n_v, n_u), see about as much of the beam as those around them.

    Where there is none in a large pixel, it is noise that makes them differ, and all count that are alive.
    """
    gain = reference.gain
    n_v, n_u = gain.shape
    # Over columns and rows at least as far apart as large pixels are wide.
    typical = median_filter(gain[::size, ::size], 3, mode="nearest")
    spread = (np.arange(n_v)[:, None] // size, np.arange(n_u)[None] // size)
    good = (gain > UNLIKE * typical[spread]) & (gain < typical[spread] / UNLIKE)
    alive = np.ones_like(good)
    alive.reshape(-1)[reference.dead] = False
    counted = np.zeros(typical.shape, dtype=np.int64)
    np.add.at(counted, np.broadcast_arrays(*spread), good & alive)
    return alive & (good | (counted == 0)[spread])


def _binned(size: int, good: np.ndarray, frames: Callable[[slice], np.ndarray]) -> np.ndarray:
    """Return sums over the good of size × size pixels, float64 (n, n_v // size, n_u // size).

    frames: gives rows of (n, n_v, n_u), of which some are left out where they are many.
    """
    n_v, n_u = good.shape
    rows_high, columns = n_v // size, n_u // size
    sums = []
    for row in range(0, rows_high * size, size):
        rows = slice(row, row + size, -(-size // MOST_ROWS))
        summed = (frames(rows) * good[rows]).sum(axis=1, dtype=np.float64)
        sums.append(summed[:, : columns * size].reshape(-1, columns, size).sum(axis=2))
    return np.stack(sums, axis=1)
