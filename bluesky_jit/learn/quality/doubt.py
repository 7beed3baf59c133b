"""Where a residual is stronger than noise explains: features that were lost or invented at a place."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.stats import f as f_distribution

BLOCK = 16
"""Points along a side of a block: 256 values, few enough that the noise is the same all over it."""
CELL = BLOCK // 2
"""Step of the doubt map: its windows are blocks that overlap by half."""
FEATURE = 5
"""Points of the mean through which features stand out of the noise, which is strongest from point to point."""
NEIGHBOURHOOD = BLOCK
"""Reach (standard deviation, points) of the mean that says how strong the noise is around here."""
FALSE_ALARM = 0.01
"""How often a finding may be blamed on a perfect denoiser, for each kind of finding."""
VISIBLE = 4.0
"""Times the noise at which a feature is seen with the eye (Rose's criterion, 3 to 5)."""


def doubt_map(residual: np.ndarray, noise: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the doubt map, float32 (ny, nx), and what noise alone hardly exceeds anywhere in a slice."""
    shares = _windows(inside.astype(np.float32))
    there = shares > 0.25
    safe = np.where(there, shares, 1)
    features, chance = (_windows(np.square(mean_over(image, FEATURE))) / safe for image in (residual, noise))
    reach = NEIGHBOURHOOD / CELL
    weight = gaussian_filter(there.astype(np.float64), reach, mode="constant")
    usual = gaussian_filter(np.where(there, chance, 0), reach, mode="constant") / np.where(there, weight, 1)
    there &= usual > 0
    usual = np.where(there, usual, 1)
    # A window's energy is a sum of some independent squares; how many, the noise itself tells: the logarithm of such a
    # sum of n has a variance of 2/n. Taken from its median deviation, times 1.4826, for one wild spike must not count.
    # A reference has as many times more as windows, which overlap fourfold, lie in its neighbourhood.
    logs = np.log(np.maximum(chance / usual, 1e-12)[there])
    freedom = 2 / max((1.4826 * float(np.median(np.abs(logs - np.median(logs))))) ** 2, 1e-6)
    around = 4 * math.pi * reach**2 / 4
    limit = math.sqrt(float(f_distribution.isf(FALSE_ALARM / np.count_nonzero(there), freedom, around * freedom)))
    coarse = np.where(there, np.sqrt(features / usual), 0)
    ny, nx = residual.shape
    fine = _between(coarse.shape[0], ny) @ coarse.astype(np.float32) @ _between(coarse.shape[1], nx).T
    return np.where(inside, fine, np.float32(np.nan)), limit


def _windows(values: np.ndarray) -> np.ndarray:
    """Return the mean of each block, the blocks overlapping by half: float64 (ny // CELL − 1, nx // CELL − 1)."""
    cells = tiled(values, CELL).mean(axis=(1, 3), dtype=np.float64)
    return (cells[:-1, :-1] + cells[1:, :-1] + cells[:-1, 1:] + cells[1:, 1:]) / 4


def _between(windows: int, points: int) -> np.ndarray:
    """Return float32 (points, windows): weights that interpolate from the windows' centres to every point."""
    place = np.clip((np.arange(points) + 0.5 - CELL) / CELL, 0, windows - 1)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(windows))).astype(np.float32)


def mean_over(image: np.ndarray, size: int) -> np.ndarray:
    """Return float32 means over size×size points, edges repeated; five times as fast as SciPy's for a few points."""
    ny, nx = image.shape
    wide = np.pad(image.astype(np.float32, copy=False), size // 2, mode="edge")
    rows = wide[:ny].copy()
    for shift in range(1, size):
        rows += wide[shift : shift + ny]
    total = rows[:, :nx].copy()
    for shift in range(1, size):
        total += rows[:, shift : shift + nx]
    return total / np.float32(size * size)


def tiled(values: np.ndarray, size: int) -> np.ndarray:
    """Return a view (rows, size, columns, size) of whole blocks, without what is left over at the bottom and right."""
    rows, columns = values.shape[0] // size, values.shape[1] // size
    return values[: rows * size, : columns * size].reshape(rows, size, columns, size)


def lost_or_invented(raw: np.ndarray, denoised: np.ndarray, place: tuple[int, int]) -> str:
    """Say which of the slices has the feature, seen through a mean over FEATURE points: the one that varies more."""
    around = tuple(slice(max(0, at - BLOCK), at + BLOCK) for at in place)
    before, after = (float(np.var(mean_over(image[around], FEATURE))) for image in (raw, denoised))
    if after > before:
        return "a feature invented"
    return "a feature lost (or an artefact that both halves share taken away, such as a ring)"
