"""Weight and filter a projection for filtered backprojection (Feldkamp's, for the cone)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from bluesky_jit.tomo.geometry import ConeGeometry, Geometry

FILTERS = ("ram-lak", "shepp-logan", "cosine", "hann")
ROWS = 32
"""Rows filtered at a time: the block and its transform stay in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFilter:
    """Hold each pixel's weight, float32 (n_v, n_u), and the response, float32 (n_padded // 2 + 1,) in 1/mm."""

    weight: np.ndarray
    response: np.ndarray
    n_padded: int


def make_filter(geometry: Geometry, name: str = "ram-lak", *, cutoff: float = 1.0) -> RowFilter:
    """Prepare the filter for a set-up; name is one of FILTERS, cutoff a part of the Nyquist frequency."""
    n_padded = int(scipy.fft.next_fast_len(2 * geometry.n_u, True))  # pyright: ignore[reportArgumentType]
    return RowFilter(
        weight=fan_weight(geometry).astype(np.float32),
        response=ramp_response(n_padded, geometry.voxel_mm, name, cutoff=cutoff).astype(np.float32),
        n_padded=n_padded,
    )


def ramp_response(n_padded: int, step_mm: float, name: str = "ram-lak", *, cutoff: float = 1.0) -> np.ndarray:
    """Return the real response, float64 (n_padded // 2 + 1,) in 1/mm, of the band-limited ramp times the step.

    The ramp is sampled in space (Kak and Slaney, eq. 3.61): sampled in frequency it would lose its constant term, and
    with it the absolute scale. `step_mm` is the pixel's size at the axis. The window `name` falls to its end at
    `cutoff` of the Nyquist frequency; beyond, the response is 0.
    """
    if name not in FILTERS:
        raise ValueError(f"filter is {name!r}: give one of {', '.join(FILTERS)}")
    if not 0 < cutoff <= 1:
        raise ValueError(f"filter cutoff is {cutoff}: give a part of the Nyquist frequency, above 0 and at most 1")
    n = np.arange(n_padded)
    distance = np.minimum(n, n_padded - n)
    ramp = np.zeros(n_padded)
    odd = distance % 2 == 1
    ramp[odd] = -1.0 / (np.pi * distance[odd]) ** 2
    ramp[0] = 0.25
    frequency = np.fft.rfftfreq(n_padded) / cutoff
    windows = {
        "ram-lak": np.ones_like(frequency),
        "shepp-logan": np.sinc(frequency),
        "cosine": np.cos(np.pi * frequency),
        "hann": 0.5 + 0.5 * np.cos(2 * np.pi * frequency),
    }
    return np.where(frequency <= 0.5, np.fft.rfft(ramp).real / step_mm * windows[name], 0.0)


def fan_weight(geometry: Geometry) -> np.ndarray:
    """Return each virtual pixel's weight before the filter, float64 (n_v, n_u): the ray's cosine; 1 in a parallel beam.

    When the axis lies off the central ray by s, lines are sampled more densely on one side: the Jacobian of the change
    from fan to parallel coordinates gains the factor 1 + s·u / D², where u is measured at the axis and D is the
    distance from source to axis. A tilted axis brings the cosine of its tilt: the object's frequencies are sampled that
    much more densely. Feldkamp's formula for its circle, written for our detector, is left with this one factor; the
    others depend on the row only and cancel.
    """
    tilt = geometry.axis_tilt_rad
    if not isinstance(geometry, ConeGeometry):
        return np.full((geometry.n_v, geometry.n_u), np.cos(tilt))
    distance = geometry.source_axis_mm
    u = (np.arange(geometry.n_u) - geometry.u_centre) * geometry.voxel_mm
    v = (np.arange(geometry.n_v) - geometry.v_centre)[:, None] * geometry.voxel_mm
    # How far a ray of this row goes in the plane of the source's circle: D in the middle row, upright.
    along = distance * np.cos(tilt) + v * np.sin(tilt)
    off_axis = 1 + geometry.axis_offset_mm * u / (distance * np.cos(tilt) * along)
    return np.cos(tilt) * distance / np.sqrt(distance**2 + u**2 + v**2) * off_axis


def filtered(line_integrals: np.ndarray, row_filter: RowFilter) -> np.ndarray:
    """Weight and filter the rows of line integrals (n_v, n_u); return float32 (n_v, n_u) in 1/mm."""
    n_v, n_u = line_integrals.shape
    result = np.empty((n_v, n_u), dtype=np.float32)
    for first in range(0, n_v, ROWS):
        rows = slice(first, first + ROWS)
        spectrum = scipy.fft.rfft(line_integrals[rows] * row_filter.weight[rows], n=row_filter.n_padded, axis=1)
        spectrum *= row_filter.response
        convolved = np.asarray(scipy.fft.irfft(spectrum, n=row_filter.n_padded, axis=1, overwrite_x=True))
        result[rows] = convolved[:, :n_u]
    return result
