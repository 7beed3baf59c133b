"""Scores against a known truth: PSNR, SSIM and Dice."""

from __future__ import annotations

import math

import numpy as np


def data_range(truth: np.ndarray) -> float:
    """Return the range of a noise-free image, in 1/mm: what PSNR and SSIM are relative to."""
    extent = float(truth.max() - truth.min())
    if extent <= 0:
        raise ValueError(
            "the truth is the same everywhere, so PSNR and SSIM mean nothing: compare a slice that has contents"
        )
    return extent


def psnr(image: np.ndarray, truth: np.ndarray, *, mask: np.ndarray | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB, the peak being the truth's range, where mask (ny, nx) is true."""
    inside = np.ones(truth.shape, dtype=bool) if mask is None else mask
    error = float(np.mean((image[inside].astype(np.float64) - truth[inside]) ** 2))
    return 10 * math.log10(data_range(truth) ** 2 / error) if error > 0 else math.inf


def ssim(image: np.ndarray, truth: np.ndarray, *, mask: np.ndarray | None = None) -> float:
    """Return the mean structural similarity, relative to the truth's range, where mask (ny, nx) is true."""
    # Imported here: the session measures accuracy all the time and this never.
    from skimage.metrics import structural_similarity

    reference = np.asarray(truth, dtype=np.float64)
    extent = data_range(reference)
    image = np.asarray(image, dtype=np.float64)
    local = np.asarray(structural_similarity(reference, image, data_range=extent, full=True)[1])  # type: ignore[index]
    return float(np.mean(local if mask is None else local[mask]))


def dice(labels: np.ndarray, truth: np.ndarray, *, mask: np.ndarray | None = None) -> float:
    """Return Dice's overlap of two sets of pixels, 2·|A∩B| / (|A| + |B|), where mask (ny, nx) is true; 1 is the same.

    labels, truth: true or 1 where the class is. Two empty sets are the same.
    """
    if labels.shape != truth.shape:
        raise ValueError(f"labels are {labels.shape} and the truth {truth.shape}: give one shape (ny, nx)")
    inside = np.ones(truth.shape, dtype=bool) if mask is None else mask
    mine, theirs = labels[inside].astype(bool), truth[inside].astype(bool)
    total = int(mine.sum()) + int(theirs.sum())
    return 2 * int((mine & theirs).sum()) / total if total else 1.0
