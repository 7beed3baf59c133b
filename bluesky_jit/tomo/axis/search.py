"""Find roughly where the axis is, anywhere on the detector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.stats import norm

from bluesky_jit.tomo.axis.views import Views, high_passed

REACH_STEPS = 2.5
"""A view this many typical steps from the opposite of another still tells roughly where the axis is."""
LARGEST_OFFSET = 0.4
"""Part of the detector's width that the axis may lie from its middle: a fifth of the columns then has an opposite."""
SIGMAS_PX = (2.0, 6.0)
"""Smoothing before views are compared; the one of which the best place stands out most is taken."""
SMALL_OVERLAP = 0.1
"""Where hardly anything overlaps chance agrees best: its energy counts as this part of the largest at least."""
STRIP_SIGMAS = 8
"""Strips so many smoothing lengths wide vote independently of each other."""
INDEPENDENT_SIGMAS = 2.0
"""Shifts so many smoothing lengths apart agree independently of each other."""
NEARBY = 0.02
"""Part of the width around the best place that is the same place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Say at which column the axis lies, roughly.

    distinct: 0 to 1, how far this place stands out among all others; chance: how probable it is, 0 to 1, that noise
    alone has made it.
    """

    column: float
    distinct: float
    chance: float


def search(views: Views) -> Match | None:
    """Find the axis anywhere on the detector, by normalised correlation of views with their mirrored opposites.

    Returns None where there are no opposing views, or nothing in them.
    """
    partner, valid = _nearest(views)
    keep = np.asarray(valid.any(axis=1))
    if not keep.any():
        return None
    found = [_correlated(views, partner[keep], valid[keep], keep, sigma) for sigma in SIGMAS_PX]
    return max((match for match in found if match), key=lambda match: match.distinct, default=None)


def _correlated(
    views: Views, partner: np.ndarray, valid: np.ndarray, keep: np.ndarray, sigma_px: float
) -> Match | None:
    n_u = views.fan.n_u
    signal = high_passed(views.rows, sigma_px)
    here = signal[:, keep] * valid
    # The mirror image has the opposite slope.
    there = -signal[:, :, ::-1][:, partner, np.arange(n_u)] * valid
    n_padded = int(next_fast_len(2 * n_u, True))  # pyright: ignore[reportArgumentType]
    product = np.asarray(rfft(here, n_padded)) * np.conj(np.asarray(rfft(there, n_padded)))
    correlation = np.asarray(irfft(product.sum(axis=(0, 1)), n_padded))
    shifts = np.arange(-int(2 * LARGEST_OFFSET * n_u), int(2 * LARGEST_OFFSET * n_u) + 1)
    energy = np.sqrt(_overlap_energy(here, shifts) * _overlap_energy(there, -shifts))
    largest = float(energy.max())
    if not largest > 0:
        return None
    score = correlation[shifts] / (energy + SMALL_OVERLAP * largest)
    best = int(np.argmax(score))
    if not score[best] > 0:
        return None
    elsewhere = np.abs(shifts - shifts[best]) > max(8 * sigma_px, NEARBY * n_u)
    second = max(float(score[elsewhere].max(initial=0.0)), 0.0)
    return Match(
        column=(n_u - 1) / 2 + float(shifts[best]) / 2,
        distinct=1 - second / float(score[best]),
        chance=_chance(here, there, int(shifts[best]), sigma_px),
    )


def _chance(here: np.ndarray, there: np.ndarray, shift: int, sigma_px: float) -> float:
    """Return how probable it is that noise agrees as well at the best of all shifts.

    Strips of pairs agree or disagree independently of each other if they are noise: their sum is then normal, with
    the variance that they show.
    """
    n_u = here.shape[-1]
    first, last = max(0, shift), min(n_u, n_u + shift)
    product = here[..., first:last] * there[..., first - shift : last - shift]
    strip = int(STRIP_SIGMAS * sigma_px)
    votes = np.add.reduceat(product, np.arange(0, last - first, strip), axis=-1)
    # Each pair is in it twice, once from each side.
    spread = float(np.sqrt(2 * np.sum(votes**2)))
    trials = 4 * LARGEST_OFFSET * n_u / (INDEPENDENT_SIGMAS * sigma_px)
    return float(min(1.0, trials * norm.sf(float(votes.sum()) / spread))) if spread > 0 else 1.0


def _nearest(views: Views) -> tuple[np.ndarray, np.ndarray]:
    """Return for each ray (n, n_u) the view nearest to its opposite, and whether it is near enough to tell anything."""
    columns = np.arange(views.fan.n_u, dtype=np.float64)
    turned = views.fan.turned(columns, views.fan.central)
    before, after, way, gap = views.neighbours(views.angles_rad[:, None] + turned[None, :])
    nearest = np.where(way < 0.5, before, after)
    return nearest, np.minimum(way, 1 - way) * gap <= REACH_STEPS * views.step_rad


def _overlap_energy(signal: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Return the energy of the part of signals (n_rows, n, n_u) that overlaps one shifted by so many columns."""
    total = np.concatenate([[0.0], np.cumsum((signal**2).sum(axis=(0, 1)))])
    n_u = signal.shape[-1]
    return total[np.clip(n_u + shifts, 0, n_u)] - total[np.clip(shifts, 0, n_u)]
