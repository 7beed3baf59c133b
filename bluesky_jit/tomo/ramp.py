"""Weight and filter a projection for filtered backprojection (Feldkamp's, for the cone)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bluesky_jit.tomo.corrections.array_module import array_module
from bluesky_jit.tomo.geometry import ConeGeometry, Geometry
from bluesky_jit.tomo.row_convolution import RowConvolution, convolve_rows, fast_length, make_convolution

FILTERS = ("ram-lak", "shepp-logan", "cosine", "hann")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFilter:
    """Hold each pixel's weight, float32 (n_v, n_u), and the response in 1/mm.

    response: float32 (n_padded,), real and even, in the order of numpy.fft.fft; convolution: the same for the CPU.
    """

    weight: np.ndarray
    response: np.ndarray
    convolution: RowConvolution


def make_filter(geometry: Geometry, name: str = "ram-lak", *, cutoff: float = 1.0) -> RowFilter:
    """Prepare the filter for a set-up; name is one of FILTERS, cutoff a part of the Nyquist frequency."""
    # Twice the row: no row's end reaches round to its beginning.
    response = ramp_response(fast_length(2 * geometry.n_u), geometry.voxel_mm, name, cutoff=cutoff)
    return RowFilter(
        weight=fan_weight(geometry).astype(np.float32),
        response=response.astype(np.float32),
        convolution=make_convolution(response),
    )


def ramp_response(n_padded: int, step_mm: float, name: str = "ram-lak", *, cutoff: float = 1.0) -> np.ndarray:
    """Return the real and even response, float64 (n_padded,) in 1/mm, of the band-limited ramp times the step.

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
    frequency = np.abs(np.fft.fftfreq(n_padded)) / cutoff
    windows = {
        "ram-lak": np.ones_like(frequency),
        "shepp-logan": np.sinc(frequency),
        "cosine": np.cos(np.pi * frequency),
        "hann": 0.5 + 0.5 * np.cos(2 * np.pi * frequency),
    }
    return np.where(frequency <= 0.5, np.fft.fft(ramp).real / step_mm * windows[name], 0.0)


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
    """Weight and filter the rows of line integrals (n_v, n_u), of numpy or cupy; return float32 (n_v, n_u) in 1/mm."""
    if isinstance(line_integrals, np.ndarray):
        return convolve_rows(line_integrals, row_filter.weight, row_filter.convolution)
    return filter_formula(line_integrals, row_filter.weight, row_filter.response)


def filter_formula(line_integrals: np.ndarray, weight: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Do what `filtered` does in the plainest way, with weight and response where the line integrals are."""
    xp = array_module(line_integrals)
    n_padded = len(response)
    n_u = line_integrals.shape[-1]
    spectrum = xp.fft.rfft(line_integrals * weight, n=n_padded, axis=-1) * response[: n_padded // 2 + 1]
    return xp.fft.irfft(spectrum, n=n_padded, axis=-1)[..., :n_u].astype(xp.float32)
