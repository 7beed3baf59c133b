"""Find the axis in half a turn of a parallel beam, whose only opposing views are its first and its last."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates, uniform_filter1d

from bluesky_jit.tomo.axis_views import Views

VIEWS_A_SIDE = 16
"""Views on each side of the seam that are looked at: those further away follow from their neighbours anyway."""
SPAN_PX = 8.0
RESOLUTION_PX = 0.02
ROUNDS = 3
TAPER = 0.1
"""Part of the columns, at each end, over which views fade out."""
NOISE_QUARTILE = 0.75
"""From this part of the band on there is little else than noise."""
SMOOTHED = 9
"""Frequencies that the signal's power is averaged over."""
WORTH_HAVING = 0.1
"""Signal, as part of the noise, below which a frequency tells nothing."""
NOISELESS = 1e-6
"""Noise, as part of the signal, that is taken for granted: computed views have none."""
TINY = np.finfo(float).tiny


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
    axis, error, gain = start, np.inf, 0.0
    for _ in range(ROUNDS):
        step, error, gain = _most_likely(last, first, angles, axis, views.fan.n_u)
        axis += step
        if abs(step) < RESOLUTION_PX:
            break
    return axis, error, gain


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


def _most_likely(
    last: np.ndarray, first: np.ndarray, angles: np.ndarray, axis: float, n_u: int
) -> tuple[float, float, float]:
    """Return how far from `axis` the likelihood has its maximum, its width, and its height over unrelated sides."""
    reach = min(axis, n_u - 1 - axis)
    if reach < SPAN_PX:
        return 0.0, np.inf, 0.0
    columns = axis + np.arange(-int(reach), int(reach) + 1)
    taper = _taper(len(columns))
    here, there = _at(last, columns), _at(first, columns)[..., ::-1]
    views = np.concatenate([here, there], axis=1)
    # Whatever changed between the first and the last view as a whole (the beam) is taken out.
    views = (views - np.average(views, axis=-1, weights=taper)[..., None]) * taper
    n_padded = len(columns) + 4 * int(SPAN_PX)
    spectrum = np.fft.rfft(views, n_padded)
    omega = 2 * np.pi * np.fft.rfftfreq(n_padded)
    n_here = last.shape[1]
    power = (np.abs(spectrum) ** 2).mean(axis=(0, 1))
    noise = float(np.mean(power[int(NOISE_QUARTILE * len(power)) :]))
    # Smoothed, or single peaks of the noise would pass for signal.
    signal = np.maximum(uniform_filter1d(power, SMOOTHED) - noise, 0.0)
    cross, floor = np.zeros(len(omega), dtype=np.complex128), 0.0
    for k in range(1, len(omega)):
        if signal[k] < WORTH_HAVING * noise:
            floor += float(np.sum(np.abs(spectrum[:, :, k]) ** 2)) / max(noise, TINY) / views.shape[0]
            continue
        covariance = _covariance(angles, reach * omega[k], float(signal[k]), max(noise, NOISELESS * float(signal[k])))
        information = np.linalg.inv(covariance)
        sides = spectrum[:, :, k]
        cross[k] = np.einsum("cm,mn,cn->", sides[:, :n_here].conj(), information[:n_here, n_here:], sides[:, n_here:])
        floor += float(np.einsum("cm,mn,cn->", sides.conj(), information, sides).real) / views.shape[0]
    shifts = np.arange(-SPAN_PX, SPAN_PX + RESOLUTION_PX / 2, RESOLUTION_PX)
    # A move of the axis by s moves the mirrored views by 2 s; neighbouring frequencies are alike in the padded part.
    phases = np.exp(-2j * omega[:, None] * shifts[None, :])
    share = len(columns) / n_padded
    cost = 2 * share * np.real(cross @ phases)
    best = int(np.argmin(cost))
    curvature = 2 * share * float(np.real(np.sum(cross * -((2 * omega) ** 2) * phases[:, best])))
    # The model is not quite true: what it says counts less the worse it fits.
    misfit = max(1.0, floor / (len(omega) * len(angles)))
    gain = -float(cost[best]) / misfit
    if curvature <= 0 or best in (0, len(shifts) - 1):
        return float(shifts[best]), np.inf, gain
    return float(shifts[best]), float(np.sqrt(misfit / curvature)), gain


def _covariance(angles: np.ndarray, bandwidth: float, signal: float, noise: float) -> np.ndarray:
    apart = angles[:, None] - angles[None, :]
    return signal * np.sinc(bandwidth * apart / np.pi) + noise * np.eye(len(angles))


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
