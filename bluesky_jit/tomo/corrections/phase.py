"""Retrieve attenuation from projections with phase contrast: Paganin's method, one distance and one material.

D. Paganin et al., J. Microsc. 206 (2002) 33: the transmission T of a sample with δ = (delta_beta) · β, seen at a
distance z behind it, gives µt = −log F⁻¹{F[T] / (1 + (λ z δ / 4π β) k²)}, with k in radians per mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import scipy.constants
import scipy.fft

from bluesky_jit.tomo.corrections.array_module import array_module
from bluesky_jit.tomo.geometry import ConeGeometry, Geometry, require_positive

HC_KEV_MM = scipy.constants.h * scipy.constants.c / scipy.constants.e
"""Planck's constant times the speed of light (CODATA, exact): in eV·m, which is the same number in keV·mm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFilter:
    """Hold the response, float32 (n_v, n_u) or a little more, by which a transmission's cosine transform is multiplied.

    length_mm: over which it averages, at the axis: √(λ z δ / 4π β), with z and pixels as a parallel beam has them.
    """

    response: np.ndarray
    length_mm: float


def wavelength_mm(energy_kev: float) -> float:
    """Return the wavelength of photons."""
    require_positive("energy_kev", energy_kev, "keV")
    return HC_KEV_MM / energy_kev


def propagation_of(geometry: Geometry, propagation_mm: float | None = None) -> float:
    """Return the distance in mm over which a parallel beam would make the same fringes.

    A cone makes, M times as large, those of a parallel beam over z / M (Fresnel scaling).
    """
    if isinstance(geometry, ConeGeometry):
        distance = geometry.source_detector_mm - geometry.source_axis_mm
        if propagation_mm is not None and not np.isclose(propagation_mm, distance):
            raise ValueError(
                f"propagation_mm is {propagation_mm}, and the cone's detector stands {distance:g} mm behind the axis: "
                "leave propagation_mm out, or correct source_axis_mm and source_detector_mm"
            )
        return distance / geometry.magnification
    if propagation_mm is None:
        raise ValueError(
            "propagation_mm is not given: phase retrieval in a parallel beam needs the distance from sample to detector"
        )
    if not (np.isfinite(propagation_mm) and propagation_mm >= 0):
        raise ValueError(f"propagation_mm is {propagation_mm}: give the distance from sample to detector in mm")
    return propagation_mm


def make_phase_filter(
    geometry: Geometry, *, delta_beta: float, energy_kev: float, propagation_mm: float | None = None
) -> PhaseFilter:
    """Prepare Paganin's filter for a set-up; delta_beta: refractive decrement over absorption index of the material."""
    require_positive("delta_beta", delta_beta, "(δ over β)")
    distance = propagation_of(geometry, propagation_mm)
    area = wavelength_mm(energy_kev) * distance * delta_beta / (4 * np.pi)
    k_v, k_u = (_wavenumbers(n, geometry.voxel_mm) for n in (geometry.n_v, geometry.n_u))
    response = 1 / (1 + area * (k_v[:, None] ** 2 + k_u**2))
    return PhaseFilter(response=response.astype(np.float32), length_mm=float(np.sqrt(area)))


def retrieved(transmission: np.ndarray, phase_filter: PhaseFilter) -> np.ndarray:
    """Return the line integrals, float32 (n_v, n_u), of a transmission (n_v, n_u) with values above 0.

    The cosine transform takes the frame as mirrored at its four sides, so nothing wraps around.
    """
    xp, fft = array_module(transmission), _transforms(transmission)
    (n_v, n_u), (padded_v, padded_u) = transmission.shape, phase_filter.response.shape
    padded = xp.pad(transmission, ((0, padded_v - n_v), (0, padded_u - n_u)), mode="symmetric")
    spectrum = fft.dctn(padded, type=2, overwrite_x=True)
    spectrum *= xp.asarray(phase_filter.response)
    smooth = fft.idctn(spectrum, type=2, overwrite_x=True)[:n_v, :n_u]
    # An average cannot be below what it is made of, but for rounding, which must not reach the logarithm.
    return -xp.log(xp.maximum(smooth, transmission.min()))


def _wavenumbers(n: int, pixel_mm: float) -> np.ndarray:
    """Return the wavenumbers, rad/mm, of the cosine transform of n pixels, made a few more where that is faster."""
    n_padded = int(scipy.fft.next_fast_len(n, True))  # pyright: ignore[reportArgumentType]
    return np.pi * np.arange(n_padded) / (n_padded * pixel_mm)


def _transforms(array: np.ndarray) -> Any:
    """Return the module with the transforms for an array of the CPU or the GPU."""
    return scipy.fft if array_module(array) is np else import_module("cupyx.scipy.fft")
