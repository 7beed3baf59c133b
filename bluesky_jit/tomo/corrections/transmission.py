"""Turn raw counts into attenuation: −log of (counts − dark) / (flat − dark).

The formulas serve numpy and cupy arrays alike; a frame of uint16 on the CPU takes a loop that does the same at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from bluesky_jit.tomo.corrections.array_module import array_module

MIN_COUNTS = 0.5
"""Counts above the dark that a pixel is raised to, so that a shadow too deep to measure keeps a finite attenuation."""
DEAD_FRACTION = 0.01
"""A pixel whose flat is below this part of the typical flat (or below one count) is dead."""
MAX_DEAD = 0.2
"""Dead pixels, as part of all, above which it is the flats that are wrong: detectors with one pixel in a hundred dead
are sent back, and the image of a fifth of the pixels cannot be made up from the others."""
SATURATION = 65535
"""Counts at which a pixel is full, unless the detector says otherwise: the most that its uint16 can hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Hold what a frame is compared with: darks, flats, and the counts at which a pixel is full.

    dark, gain: float32 (n_v, n_u), where gain is flat − dark, and 1 in dead pixels; dead pixels, as indices into the
    flattened frame (n_dead,), take a weighted mean of the nearest live pixels left and right in their row.
    """

    dark: np.ndarray
    gain: np.ndarray
    dead: np.ndarray
    left: np.ndarray
    right: np.ndarray
    left_weight: np.ndarray
    right_weight: np.ndarray
    saturation: int = SATURATION


def make_reference(dark: np.ndarray, flat: np.ndarray, *, saturation: int = SATURATION) -> Reference:
    """Compare mean darks and mean flats, float32 (n_v, n_u) each; raise ValueError when the flats show no beam."""
    is_dead = find_dead(dark, flat)
    return Reference(dark=dark, gain=gain_of(dark, flat, is_dead), saturation=saturation, **neighbours(is_dead))


def gain_of(dark: np.ndarray, flat: np.ndarray, is_dead: np.ndarray) -> np.ndarray:
    """Return the counts of the beam alone, float32 (n_v, n_u), and 1 in dead pixels."""
    return np.where(is_dead, np.float32(1), flat - dark)


def find_dead(dark: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """Return which pixels are dead, bool (n_v, n_u); raise ValueError when so many are that the flats show no beam."""
    gain = flat - dark
    limit = max(1.0, DEAD_FRACTION * float(np.median(gain)))
    is_dead = ~(gain >= limit)
    share = float(is_dead.mean())
    if share > MAX_DEAD:
        raise ValueError(
            f"{share:.0%} of the pixels are dead, and at most {MAX_DEAD:.0%} may be: the flats read {flat.mean():.1f} "
            f"counts on average and the darks {dark.mean():.1f}. Did the shutter open? Take flats again, darks with "
            "the shutter closed. If the beam is smaller than the detector, use only the region that it lights"
        )
    return is_dead


def transmission(counts: np.ndarray, reference: Reference) -> tuple[np.ndarray, float]:
    """Return what part of the beam came through, float32 (n_v, n_u), and the fraction too dark or bright to measure.

    Counts are raised to MIN_COUNTS above the dark first, so that every value is above 0.
    """
    if isinstance(counts, np.ndarray) and counts.dtype == np.uint16:
        result = np.empty(counts.shape, dtype=np.float32)
        clipped = _transmission_loop(counts, reference.dark, reference.gain, reference.saturation, result)
        if len(reference.dead):
            clipped -= np.count_nonzero(is_clipped(counts.reshape(-1)[reference.dead], reference, reference.dead))
    else:
        result, clipped = transmission_formula(counts, reference)
    fill_dead(result, reference)
    return result, float(clipped) / counts.size


def transmission_formula(counts: np.ndarray, reference: Reference) -> tuple[np.ndarray, Any]:
    """Return the transmission, but nothing useful in dead pixels, and how many of the others are clipped."""
    xp = array_module(counts)
    signal = counts.astype(xp.float32) - reference.dark
    clipped = is_clipped(counts.reshape(-1), reference)
    clipped[reference.dead] = False
    return xp.maximum(signal, xp.float32(MIN_COUNTS)) / reference.gain, xp.count_nonzero(clipped)


def is_clipped(counts: np.ndarray, reference: Reference, pixels: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Say which counts (n,), of some pixels of the flattened frame, are too dark or too bright to measure."""
    signal = counts.astype(np.float32) - reference.dark.reshape(-1)[pixels]
    return (signal < MIN_COUNTS) | (counts >= reference.saturation)


def fill_dead(values: np.ndarray, reference: Reference) -> None:
    """Give dead pixels of a transmission (n_v, n_u) the one whose attenuation is the mean of their neighbours'."""
    if len(reference.dead):
        flat = values.reshape(-1)
        left, right = flat[reference.left], flat[reference.right]
        flat[reference.dead] = left**reference.left_weight * right**reference.right_weight


def attenuation(counts: np.ndarray, reference: Reference) -> tuple[np.ndarray, float]:
    """Return the line integrals, float32 (n_v, n_u), and the fraction of pixels too dark or too bright to measure."""
    result, clipped = transmission(counts, reference)
    return -array_module(result).log(result), clipped


def neighbours(is_dead: np.ndarray) -> dict[str, np.ndarray]:
    """Find, for each dead pixel, its nearest live pixels in the row; a row with none reads as air."""
    n_u = is_dead.shape[1]
    columns = np.arange(n_u)
    before = np.maximum.accumulate(np.where(is_dead, -1, columns), axis=1)
    after = np.minimum.accumulate(np.where(is_dead, n_u, columns)[:, ::-1], axis=1)[:, ::-1]
    v, u = np.nonzero(is_dead)
    left, right = before[v, u], after[v, u]
    has_left, has_right = left >= 0, right < n_u
    left_weight = np.where(has_left, np.where(has_right, (right - u) / np.maximum(right - left, 1), 1.0), 0.0)
    right_weight = np.where(has_right, 1.0 - left_weight, 0.0)
    return {
        "dead": v * n_u + u,
        "left": v * n_u + np.where(has_left, left, u),
        "right": v * n_u + np.where(has_right, right, u),
        "left_weight": left_weight.astype(np.float32),
        "right_weight": right_weight.astype(np.float32),
    }


@njit(cache=True, nogil=True, error_model="numpy")
def _transmission_loop(counts, dark, gain, saturation, result):
    """Do what `transmission_formula` does, dead pixels counted like the others."""
    least = np.float32(MIN_COUNTS)
    clipped = 0
    for v in range(counts.shape[0]):
        # Within a row a narrow counter, which is added up in vectors.
        in_row = np.int32(0)
        for u in range(counts.shape[1]):
            signal = np.float32(counts[v, u]) - dark[v, u]
            in_row += np.int32(1) if (signal < least) | (counts[v, u] >= saturation) else np.int32(0)
            result[v, u] = (signal if signal > least else least) / gain[v, u]
        clipped += in_row
    return clipped
