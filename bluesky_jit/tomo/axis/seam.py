"""Find the axis in half a turn of a parallel beam, whose only opposing views are its first and its last."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from scipy.ndimage import map_coordinates, uniform_filter1d

from bluesky_jit.tomo.axis.views import Views

VIEWS_A_SIDE = 16
"""Views on each side of the seam that are looked at: those further away follow from their neighbours anyway."""
SPAN_PX = 8.0
RESOLUTION_PX = 0.02
ROUNDS = 3
TAPER = 0.1
"""Part of the columns, at each end, over which views fade out."""
NOISE_QUARTER = 0.75
"""From this part of the band on there is little else than noise."""
SMOOTHED = 9
"""Frequencies that the signal's power is averaged over."""
WORTH_HAVING = 0.1
"""Signal, as part of the noise, below which a frequency tells nothing."""
NOISELESS = 1e-6
"""Noise, as part of the signal, that is taken for granted: computed views have none."""
TIMID = 1.7
"""The likelihood's width comes out too small by this (measured on simulated half turns of 20 to 200 photons)."""
WIDTHS = (1.0, 1.5, 2.0, 3.0)
"""How far a sample may reach, in radii of what the detector sees; the likeliest holds."""


def match_seam(views: Views, start: float) -> tuple[float, float, float] | None:
    """Find the axis' column near `start` at which the mirrored first views continue the last ones.

    Returns it, its standard deviation, and by what log-likelihood the two sides belong together.

    Seen at spatial frequency ω, an object of radius r changes with the angle no faster than r·ω (the double wedge of
    Vo et al. 2014, Opt. Express 22, 19078). Views on both sides of the seam are taken as one random function of that
    bandwidth plus noise, and the axis is what makes them most likely.
    """
    seam = _seam(views)
    if seam is None:
        return None
    last, first, angles = seam
    axis, found = start, None
    for _ in range(ROUNDS):
        sides = _spectrum(last, first, angles, axis, views.fan.n_u)
        if sides is None:
            return None
        found = min((_most_likely(sides, angles, width) for width in WIDTHS), key=lambda likelihood: likelihood.cost)
        axis += found.step
        if abs(found.step) < RESOLUTION_PX:
            break
    return (axis, found.error, found.gain) if found else None


def _seam(views: Views) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return the views before the seam, those after it, and the angles of all of them from the seam on."""
    angles, n = views.angles_rad, len(views.angles_rad)
    gaps = np.diff(angles, append=angles[0] + 2 * np.pi)
    start = (int(np.argmax(gaps)) + 1) % n
    order = np.roll(np.arange(n), -start)
    unfolded = np.mod(angles[order] - angles[start], 2 * np.pi)
    before = np.nonzero(unfolded < np.pi + views.step_rad / 2)[0][-VIEWS_A_SIDE:]
    after = np.arange(min(VIEWS_A_SIDE, n // 2))
    if len(before) < 4 or len(after) < 4:
        return None
    positions = np.concatenate([unfolded[before] - np.pi, unfolded[after]])
    return views.rows[:, order[before]], views.rows[:, order[after]], positions


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spectrum:
    """Hold both sides of the seam by spatial frequency, only those that tell anything.

    values: complex128 (n_omega, n_rows, n_views); omega: (n_omega,) in rad per pixel; signal, noise: power of each;
    n_before: views before the seam; share: how many frequencies are independent, as part of all; reach: radius in
    pixels.
    """

    values: np.ndarray
    omega: np.ndarray
    signal: np.ndarray
    noise: np.ndarray
    n_before: int
    share: float
    reach: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Likelihood:
    """Say how far from where it was the axis is likeliest, its deviation, and two figures of how well that fits."""

    step: float
    error: float
    gain: float
    cost: float


def _most_likely(sides: _Spectrum, angles: np.ndarray, width: float) -> _Likelihood:
    """Find the likeliest step of the axis if the sample reaches `width` times as far as the detector sees."""
    bandwidth = width * sides.reach * sides.omega
    apart = np.abs(angles[:, None] - angles[None, :])
    smooth = np.sinc(bandwidth[:, None, None] * apart / np.pi)
    covariance = sides.signal[:, None, None] * smooth + sides.noise[:, None, None] * np.eye(len(angles))
    information = np.linalg.inv(covariance)
    n, n_rows = sides.n_before, sides.values.shape[1]
    cross = np.einsum(
        "kcm,kmn,kcn->k", sides.values[..., :n].conj(), information[:, :n, n:], sides.values[..., n:], optimize=True
    )
    floor = float(np.einsum("kcm,kmn,kcn->", sides.values.conj(), information, sides.values, optimize=True).real)
    shifts = np.arange(-SPAN_PX, SPAN_PX + RESOLUTION_PX / 2, RESOLUTION_PX)
    # A move of the axis by s moves the mirrored views by 2 s.
    phases = np.exp(-2j * sides.omega[:, None] * shifts[None, :])
    joined = 2 * np.real(cross @ phases)
    best = int(np.argmin(joined))
    unjoined = floor - 2 * float(np.real(cross.sum()))
    fit = sides.share * (unjoined + float(joined[best]))
    cost = fit + sides.share * n_rows * float(np.linalg.slogdet(covariance)[1].sum())
    # The model is not quite true: what it says counts less the worse it fits.
    misfit = max(1.0, fit / (sides.share * sides.values.size))
    gain = -sides.share * float(joined[best]) / misfit
    curvature = -8 * sides.share * float(np.real(np.sum(cross * sides.omega**2 * phases[:, best])))
    inside = curvature > 0 and 0 < best < len(shifts) - 1
    error = TIMID * sqrt(misfit / curvature) if inside else inf
    return _Likelihood(step=float(shifts[best]), error=error, gain=gain, cost=cost)


def _spectrum(last: np.ndarray, first: np.ndarray, angles: np.ndarray, axis: float, n_u: int) -> _Spectrum | None:
    """Mirror the first views about the axis, and transform both sides as far as they overlap."""
    reach = min(axis, n_u - 1 - axis)
    if reach < SPAN_PX:
        return None
    columns = axis + np.arange(-int(reach), int(reach) + 1)
    taper = _taper(len(columns))
    views = np.concatenate([_at(last, columns), _at(first, columns)[..., ::-1]], axis=1)
    # Whatever changed between the first and the last view as a whole (the beam) is taken out.
    views = (views - np.average(views, axis=-1, weights=taper)[..., None]) * taper
    n_padded = len(columns) + 4 * int(SPAN_PX)
    values = np.moveaxis(np.fft.rfft(views, n_padded), -1, 0)
    omega = 2 * np.pi * np.fft.rfftfreq(n_padded)
    power = (np.abs(values) ** 2).mean(axis=(1, 2))
    noise = float(np.mean(power[int(NOISE_QUARTER * len(power)) :]))
    # Smoothed, or single peaks of the noise would pass for signal.
    signal = np.maximum(uniform_filter1d(power, SMOOTHED) - noise, 0.0)
    n_before = last.shape[1]
    closest = float(np.abs(angles[:n_before, None] - angles[None, n_before:]).min())
    # Beyond, views on the two sides of the seam have nothing in common any more.
    telling = (signal > WORTH_HAVING * noise) & (omega > 0) & (reach * omega * closest < 2 * np.pi)
    if not telling.any():
        return None
    return _Spectrum(
        values=values[telling],
        omega=omega[telling],
        signal=signal[telling],
        noise=np.maximum(noise, NOISELESS * signal[telling]),
        n_before=n_before,
        share=len(columns) / n_padded,
        reach=reach,
    )


def _taper(n: int) -> np.ndarray:
    edge = max(2, int(TAPER * n))
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(edge) + 0.5) / edge)
    taper = np.ones(n)
    taper[:edge], taper[-edge:] = ramp, ramp[::-1]
    return taper


def _at(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return views (n_rows, n, n_u) at fractional columns, by cubic splines."""
    n_rows, n, n_u = rows.shape
    flat = rows.reshape(-1, n_u)
    index = np.broadcast_to(np.arange(len(flat))[:, None], (len(flat), len(columns)))
    at = np.broadcast_to(columns, index.shape)
    return map_coordinates(flat, [index, at], order=3, mode="nearest").reshape(n_rows, n, len(columns))
