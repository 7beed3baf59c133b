"""The empirical accuracy: how near the denoised half comes to the other half, and how well that is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

from bluesky_jit.messages import Pairs

BLOCK = 16
"""Points along a side of the blocks whose scatter gives the uncertainty of a whole slice's accuracy: far longer than
noise is correlated over."""
SIGMAS = 2.0
"""Uncertainties that an accuracy must lie below a limit: one network in forty would be let through by luck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Carry an accuracy with its standard error; value is NaN when there was nothing to measure.

    uncertainty: the standard error, enlarged where few values tell it so that `SIGMAS` of it are exceeded as seldom as
    of one that is known (Student); infinite where nothing tells it.
    """

    value: float = math.nan
    uncertainty: float = math.inf


def beats_raw(splits: int) -> float:
    """Return the accuracy below which a denoised slice is better than the raw one on show, the mean of K splits.

    Of noise variance σ² in each, the raw slice has σ²/K and the target, the mean of the K − 1 others, σ²/(K − 1):
    α = (σ²/K + σ²/(K − 1)) / (σ² + σ²/(K − 1)), which is 0.75 for two. (α < 1 merely beats one split.)
    """
    return (2 * splits - 1) / splits**2


def suspicious(splits: int) -> float:
    """Return the accuracy that no denoiser of independent noise reaches: a tenth below the ideal, which is 1/K."""
    return 0.9 / splits


BEATS_RAW = beats_raw(2)
SUSPICIOUS = suspicious(2)


def middle(slabs: np.ndarray) -> np.ndarray:
    """Return the slice (n, ny, nx) of each slab (n, nt, nz, ny, nx) that the network predicts."""
    return slabs[:, slabs.shape[1] // 2, slabs.shape[2] // 2]


def accuracy_of_patches(denoised: np.ndarray, pairs: Pairs) -> Accuracy:
    """Return the paper's empirical accuracy (equation 3): mean over pairs of |A(u) − v|² / |u − v|².

    denoised: (n, ny, nx), A(u). 1 is no denoising, about 0.5 is ideal; NaN when u and v are the same everywhere. Its
    uncertainty is that of the scatter of the pairs; of a single one, of the blocks within it.
    """
    u, v = middle(pairs.u), middle(pairs.v)
    error = np.square(denoised - v).sum(axis=(1, 2), dtype=np.float64)
    noise = np.square(u - v).sum(axis=(1, 2), dtype=np.float64)
    told = np.flatnonzero(noise > 0)
    if len(told) == 1:
        [only] = told
        return accuracy_of_slice(denoised[only], u[only], v[only])
    return mean_of(error[told] / noise[told])


def mean_of(values: Sequence[float] | np.ndarray) -> Accuracy:
    """Return the mean of accuracies that are known alike, with the uncertainty that their scatter gives it."""
    count = len(values)
    if count == 0:
        return Accuracy()
    if count == 1:
        return Accuracy(value=float(values[0]))
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    return Accuracy(value=float(np.mean(values)), uncertainty=_enlarged(error, count))


def ratio_of(parts: np.ndarray, wholes: np.ndarray) -> Accuracy:
    """Return the sum of parts over that of wholes, with the uncertainty that their scatter gives it."""
    count = int(np.count_nonzero((wholes > 0) | (parts > 0)))
    total = float(wholes.sum())
    if total == 0:
        return Accuracy()
    value = float(parts.sum()) / total
    if count == 1:
        return Accuracy(value=value)
    # The linearised variance of a ratio of sums.
    scatter = float(np.square(parts - value * wholes).sum()) * count / (count - 1)
    return Accuracy(value=value, uncertainty=_enlarged(math.sqrt(scatter) / total, count))


def accuracy_of_slice(
    denoised: np.ndarray, u: np.ndarray, v: np.ndarray, *, mask: np.ndarray | None = None
) -> Accuracy:
    """Return the accuracy over a whole slice, where padding shows, with its standard error from the scatter of blocks.

    denoised: A(u); all are (ny, nx), and v comes from projections that A(u) has not seen. The ratio is of sums, so that
    every pixel counts alike; mask: where every projection sees the sample, by default everywhere.
    """
    if not denoised.shape == u.shape == v.shape:
        raise ValueError(f"A(u) is {denoised.shape}, u {u.shape} and v {v.shape}: give one shape (ny, nx)")
    counted = np.ones(u.shape, dtype=bool) if mask is None else mask
    return ratio_of(_sums(np.where(counted, np.square(denoised - v), 0)), _sums(np.where(counted, np.square(u - v), 0)))


def _enlarged(error: float, count: int) -> float:
    """Return the uncertainty that a standard error from the scatter of a few values comes to."""
    return error * float(stdtrit(count - 1, ndtr(SIGMAS))) / SIGMAS


def _sums(values: np.ndarray) -> np.ndarray:
    """Return float64 sums over blocks, those at the bottom and right being smaller where the slice ends."""
    rows, columns = (np.arange(0, size, BLOCK) for size in values.shape)
    return np.add.reduceat(np.add.reduceat(values, rows, axis=0, dtype=np.float64), columns, axis=1)
