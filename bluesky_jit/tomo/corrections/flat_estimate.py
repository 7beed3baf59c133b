"""Estimate the beam without a sample from projections of one, for runs that have no flats yet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import uniform_filter1d

AIR_QUANTILE = 0.95
"""What a pixel reads in air: a pixel that the sample leaves in a tenth of the angles reads its median in air there."""
SMOOTH_PX = 9
"""Columns that are averaged before: noise would otherwise make the brightest readings too bright. Beam profiles are
wider; what is finer in the detector comes back by its mean."""
MOST_USED = 128
"""Projections that are looked at: a quantile of more of them is no better known than the beam is like this."""
ROWS_AT_ONCE = 16


def estimate_flat(counts_of_rows: Callable[[slice], np.ndarray], n_v: int) -> np.ndarray:
    """Return what flats would have read, float32 (n_v, n_u), from raw counts over a turn.

    counts_of_rows: gives the counts (n, n_rows, n_u) of some rows. Where the sample never leaves a pixel, the estimate
    is too low and so is the sample's attenuation, by the same in all angles: what is in doubt is symmetric about the
    axis.
    """
    parts = []
    for first in range(0, n_v, ROWS_AT_ONCE):
        counts = counts_of_rows(slice(first, min(first + ROWS_AT_ONCE, n_v))).astype(np.float32)
        mean = counts.mean(axis=0)
        # Along rows only: a sample's horizontal edges stay where they are as it turns.
        fine = mean / np.maximum(uniform_filter1d(mean, SMOOTH_PX, axis=-1, mode="nearest"), 1.0)
        smooth = uniform_filter1d(counts, SMOOTH_PX, axis=-1, mode="nearest")
        parts.append(np.quantile(smooth, AIR_QUANTILE, axis=0).astype(np.float32) * fine)
    return np.concatenate(parts)


def evenly(n: int) -> np.ndarray:
    """Return which of n projections are looked at."""
    return np.unique(np.linspace(0, n - 1, min(n, MOST_USED)).round().astype(np.int64))
