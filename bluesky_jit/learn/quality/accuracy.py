"""The empirical accuracy: how near the denoised half comes to the other half."""

from __future__ import annotations

import math

import numpy as np

from bluesky_jit.messages import Pairs

BEATS_RAW = 0.75
"""Accuracy below which the denoised slice is better than the raw one on show.

With noise variance σ² in each half, α = (error + σ²) / 2σ². The raw slice averages both halves, so its own error is
σ²/2, which is α = 0.75. (α < 1 merely beats one half.)
"""
SUSPICIOUS = 0.45
"""Accuracy that no denoiser of independent noise reaches (0.5 is ideal)."""


def middle(slabs: np.ndarray) -> np.ndarray:
    """Return the slice (n, ny, nx) of each slab (n, nt, nz, ny, nx) that the network predicts."""
    return slabs[:, slabs.shape[1] // 2, slabs.shape[2] // 2]


def accuracy(denoised: np.ndarray, pairs: Pairs) -> float:
    """Return the paper's empirical accuracy (equation 3): mean over pairs of |A(u) − v|² / |u − v|².

    denoised: (n, ny, nx), A(u). 1 is no denoising, about 0.5 is ideal; NaN when u and v are the same everywhere.
    """
    u, v = middle(pairs.u), middle(pairs.v)
    error = np.square(denoised - v).sum(axis=(1, 2), dtype=np.float64)
    noise = np.square(u - v).sum(axis=(1, 2), dtype=np.float64)
    told = noise > 0
    return float(np.mean(error[told] / noise[told])) if told.any() else math.nan
