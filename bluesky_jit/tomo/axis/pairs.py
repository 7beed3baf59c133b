"""Fit the axis to opposing views: the column about which one is the mirror image of the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d, spline_filter1d

from bluesky_jit.tomo.axis.views import WIDEST_STEPS, Views, high_passed

SIGMAS_PX = (2.0, 4.0, 8.0)
"""Smoothing before views are compared: the least that does. With less than two pixels, interpolation between pixels
would change the noise and pull the estimate towards half pixels."""
GOOD_ENOUGH_PX = 0.1
"""More smoothing is tried while the deviation is larger."""
CHOSEN = 1.5
"""The smallest of several deviations is one that came out too small."""
ITERATIONS = 12
LARGEST_STEP_PX = 2.0
CONVERGED_PX = 2e-3
COLUMN_STRIDE = 2
MOST_VIEWS = 180
"""Columns and views whose residuals are formed: neighbours are so alike after the smoothing that they add little."""
EDGE_PX = 4
"""Columns at the detector's edges that are left out: the smoothing has made them up in part."""
TINY = 1e-3
"""No class is trusted more than a thousand times another."""
STRIP_PX = 16
"""Width of the strips whose votes are held against each other; several times the smoothing."""
ANGULAR_BLOCKS = 12
INTERVALS = 6
"""Classes of distance between a ray's opposite and the angles measured, each with a weight of its own."""
HUBER = 2.5
"""Residuals beyond so many standard deviations (zingers, edges that moved) count less (Huber 1964)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Residuals:
    """Hold opposing views held against each other, each array (n_rows, n, n_columns) or without rows.

    residual: view minus mirrored opposite; here, there: its slope by the axis' column, from the view and from the
    opposite: the noise of one is independent of the other's; interval, strip: the classes of each ray.
    """

    residual: np.ndarray
    here: np.ndarray
    there: np.ndarray
    valid: np.ndarray
    interval: np.ndarray
    strip: np.ndarray
    block: np.ndarray


def match_pairs(views: Views, start: float) -> tuple[float, float] | None:
    """Fit the axis' column from `start` on; return it and its standard deviation, or None without opposing rays."""
    best = _fit(views, start, SIGMAS_PX[0])
    for sigma_px in SIGMAS_PX[1:]:
        if best is not None and best[1] <= GOOD_ENOUGH_PX:
            break
        found = _fit(views, start, sigma_px)
        if found is not None and (best is None or CHOSEN * found[1] < best[1]):
            best = found[0], CHOSEN * found[1]
    return best


def _fit(views: Views, start: float, sigma_px: float) -> tuple[float, float] | None:
    """Fit the axis' column by weighted least squares over all opposing rays; return it and its standard deviation.

    The slopes that residuals are correlated with are those of the view itself, where they are not interpolated:
    there a slope's noise is independent of its value's, so that noise does not pull (instrumental variables).
    """
    signal = high_passed(views.rows, sigma_px)
    slope = gaussian_filter1d(views.rows, sigma_px, axis=-1, order=2, mode="nearest")
    splines = np.asarray(spline_filter1d(signal, axis=-1, mode="mirror"))
    axis, error = start, np.inf
    for _ in range(ITERATIONS):
        found = _residuals(views, signal, slope, splines, axis)
        if found is None:
            return None
        weight = _weights(found)
        score, curvature = weight * found.here * found.residual, weight * found.here * found.there
        total = float(curvature.sum())
        if not total > 0:
            return None
        error = _spread(score, curvature, found)
        step = -float(score.sum()) / total
        axis += float(np.clip(step, -LARGEST_STEP_PX, LARGEST_STEP_PX))
        if abs(step) < CONVERGED_PX:
            break
    return axis, error


def _residuals(
    views: Views, signal: np.ndarray, slope: np.ndarray, splines: np.ndarray, axis: float
) -> _Residuals | None:
    fan, n = views.fan, len(views.angles_rad)
    at = np.arange(0, fan.n_u, COLUMN_STRIDE)
    chosen = np.arange(0, n, -(-n // MOST_VIEWS))
    mirrored = fan.mirrored(at.astype(np.float64), axis)
    inside = (mirrored >= EDGE_PX) & (mirrored <= fan.n_u - 1 - EDGE_PX) & (at >= EDGE_PX) & (at < fan.n_u - EDGE_PX)
    at, mirrored = at[inside], mirrored[inside]
    if not len(at):
        return None
    turned = fan.turned(at.astype(np.float64), axis)
    before, after, way, gap = views.neighbours(views.angles_rad[chosen, None] + turned[None, :])
    valid = gap <= WIDEST_STEPS * views.step_rad
    if not valid.any():
        return None
    base = np.floor(mirrored).astype(np.int64)
    values, slopes = _spline_taps(mirrored - base)
    picked = [splines[..., base + k] for k in (-1, 0, 1, 2)]
    columns = np.arange(len(at))

    def opposite(taps: np.ndarray) -> np.ndarray:
        image = sum((part * tap for part, tap in zip(picked, taps, strict=True)), start=np.zeros(1))
        # The mirror image has the opposite slope.
        return -(image[:, before, columns] * (1 - way) + image[:, after, columns] * way)

    between = way * (1 - way) * 4
    strip = (np.abs(at - axis) // STRIP_PX).astype(np.int64)
    block = (np.mod(views.angles_rad[chosen], np.pi) / np.pi * ANGULAR_BLOCKS).astype(np.int64)
    return _Residuals(
        residual=signal[:, chosen][..., at] - opposite(values),
        # The mirrored column moves twice as far as the axis: exactly so in a parallel beam, nearly in a cone.
        here=2 * slope[:, chosen][..., at],
        there=-2 * opposite(slopes),
        valid=valid,
        interval=np.minimum((between * INTERVALS).astype(np.int64), INTERVALS - 1),
        strip=np.broadcast_to(strip, valid.shape),
        block=np.broadcast_to(block[:, None], valid.shape),
    )


def _spline_taps(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the four weights of a cubic B-spline, (4, n), at fractions t between knots, and their derivatives."""
    r = 1 - t
    values = np.stack([r**3, 3 * t**3 - 6 * t**2 + 4, 3 * r**3 - 6 * r**2 + 4, t**3]) / 6
    slopes = np.stack([-(r**2), 3 * t**2 - 4 * t, -3 * r**2 + 4 * r, t**2]) / 2
    return values, slopes


def _weights(found: _Residuals) -> np.ndarray:
    """Return each ray's weight: the inverse variance of its classes, less where a residual is out of all proportion."""
    squared = (found.residual**2).mean(axis=0) * found.valid
    variance = np.ones(found.valid.shape)
    for classes in (found.interval, found.strip):
        n = np.bincount(classes[found.valid])
        sums = np.bincount(classes[found.valid], weights=(squared / variance)[found.valid])
        mean = sums / np.maximum(n, 1)
        floor = TINY * float(mean.max(initial=0.0)) + np.finfo(float).tiny
        variance = variance * np.maximum(mean, floor)[np.minimum(classes, len(mean) - 1)]
    ratio = np.abs(found.residual) / np.sqrt(variance)
    return np.where(found.valid, np.minimum(1.0, HUBER / np.maximum(ratio, HUBER)) / variance, 0.0)


def _spread(score: np.ndarray, curvature: np.ndarray, found: _Residuals) -> float:
    """Return the standard deviation of score / curvature, from how it changes when strips or angles are left out.

    Neighbouring rays are correlated, so blocks of them are left out (the jackknife). A strip and its mirror image, an
    angle and its opposite hold the same data, and are one block.
    """
    largest = 0.0
    for classes in (found.strip, found.block):
        index = classes.reshape(-1)
        scores = np.bincount(index, weights=score.sum(axis=0).reshape(-1))
        curvatures = np.bincount(index, weights=curvature.sum(axis=0).reshape(-1))
        rest = float(curvature.sum()) - curvatures
        if np.any(rest <= 0):
            return np.inf
        largest = max(largest, float(np.sum(((float(score.sum()) - scores) / rest) ** 2)))
    return float(np.sqrt(largest))
