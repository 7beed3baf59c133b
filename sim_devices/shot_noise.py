"""Noise of their own for frames that were rendered beforehand: a detector never gives the same noise twice."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from sim_devices.physics import FULL_SCALE, DetectorPhysics

BANK = 1_000_003
"""Normal numbers, drawn once; each frame begins elsewhere among them. A prime: no detector's rows fit into it."""


class ShotNoise:
    """Add photon and read noise to expected counts, at about a nanosecond a pixel; drawing afresh costs fifty.

    Noise of two frames is the same series begun elsewhere, so that no pixel has a number of its own.
    """

    def __init__(self, physics: DetectorPhysics, *, exposure_s: float, seed: int = 0) -> None:
        self._gain = physics.counts_per_photon
        self._base = physics.offset + physics.dark_current * exposure_s
        self._read_variance = physics.read_noise**2
        self._random = np.random.default_rng([seed, 2])
        self._bank = self._random.standard_normal(BANK, dtype=np.float32)

    def on(self, counts: np.ndarray) -> np.ndarray:
        """Return uint16 counts (n_v, n_u) with noise, from those expected."""
        noisy = np.empty(counts.shape, dtype=np.uint16)
        begin = int(self._random.integers(BANK))
        _add(counts.reshape(-1), noisy.reshape(-1), self._bank, begin, self._gain, self._base, self._read_variance)
        return noisy


@njit(cache=True, nogil=True)
def _add(
    counts: np.ndarray,
    noisy: np.ndarray,
    bank: np.ndarray,
    begin: int,
    gain: float,
    base: float,
    read_variance: float,
) -> None:
    place = begin
    for i in range(counts.size):
        mean = np.float32(counts[i])
        variance = np.float32(gain) * max(mean - np.float32(base), np.float32(0)) + np.float32(read_variance)
        value = mean + math.sqrt(variance) * bank[place] + np.float32(0.5)
        noisy[i] = np.uint16(min(max(value, np.float32(0)), np.float32(FULL_SCALE)))
        place += 1
        if place == bank.size:
            place = 0
