"""Bring frames from a detector that leans to the virtual one, which stands square to the central ray.

The ramp filter works along rows at right angles to the rotation axis; those of a detector that is rolled, pitched or
turned are not. A detector that is only shifted needs none of this.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from bluesky_jit.tomo.geometry import Geometry

OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}
HALF, ONE, THREE_HALVES, FIVE_HALVES = (np.float32(value) for value in (0.5, 1, 1.5, 2.5))


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualDetector:
    """Hold where each virtual pixel lies on the real detector: a homography (3, 3), as the geometry gives it."""

    to_real: np.ndarray

    def seen(self, line_integrals: np.ndarray) -> np.ndarray:
        """Return what the virtual detector sees, float32 (n_v, n_u), of the real one's line integrals (n_v, n_u).

        Interpolated by cubic convolution (Keys 1981), which blurs fine detail and noise much less than linear
        interpolation does. Where the real detector ends, its last pixel goes on.
        """
        result = np.empty(line_integrals.shape, dtype=np.float32)
        _resample(np.ascontiguousarray(line_integrals, dtype=np.float32), self.to_real, result)
        return result


def virtual_detector(geometry: Geometry) -> VirtualDetector | None:
    """Make the virtual detector; None when the real one, however shifted, stands square to the central ray."""
    if not geometry.needs_resampling:
        return None
    detector = VirtualDetector(to_real=geometry.to_real)
    # Compiled, or loaded from the cache, before the first frame comes.
    detector.seen(np.zeros((1, 1), dtype=np.float32))
    return detector


@njit(cache=True, **OPTIONS)
def _resample(image, to_real, result):
    """Sample an image at every virtual pixel; per row in two loops, of which the first one vectorises."""
    rows, columns = image.shape
    # A border of one pixel before and two after, so that no load has to look where the image ends.
    stride = columns + 3
    padded = np.empty((rows + 3) * stride, dtype=np.float32)
    for row in range(rows + 3):
        source = min(max(row - 1, 0), rows - 1)
        for column in range(stride):
            padded[row * stride + column] = image[source, min(max(column - 1, 0), columns - 1)]
    first = np.empty(columns, dtype=np.int32)
    across, up = np.empty(columns, dtype=np.float32), np.empty(columns, dtype=np.float32)
    last_column, last_row = columns - 1.0, rows - 1.0
    for row in range(rows):
        u0 = to_real[0, 1] * row + to_real[0, 2]
        v0 = to_real[1, 1] * row + to_real[1, 2]
        w0 = to_real[2, 1] * row + to_real[2, 2]
        for column in range(columns):
            near = 1 / (w0 + to_real[2, 0] * column)
            u = min(max((u0 + to_real[0, 0] * column) * near, 0.0), last_column)
            v = min(max((v0 + to_real[1, 0] * column) * near, 0.0), last_row)
            left, bottom = np.int32(u), np.int32(v)
            across[column], up[column] = np.float32(u - left), np.float32(v - bottom)
            first[column] = bottom * stride + left
        for column in range(columns):
            at = first[column]
            weights = _cubic(across[column])
            b0, b1, b2, b3 = _cubic(up[column])
            result[row, column] = (
                b0 * _along(padded, at, weights)
                + b1 * _along(padded, at + stride, weights)
                + b2 * _along(padded, at + 2 * stride, weights)
                + b3 * _along(padded, at + 3 * stride, weights)
            )


@njit(forceinline=True, **OPTIONS)
def _along(padded, at, weights):
    """Return the weighted sum of four pixels of a row."""
    return (
        weights[0] * padded[at]
        + weights[1] * padded[at + 1]
        + weights[2] * padded[at + 2]
        + weights[3] * padded[at + 3]
    )


@njit(forceinline=True, **OPTIONS)
def _cubic(t):
    """Return the weights of the four pixels around a point that lies t beyond the second of them."""
    s = ONE - t
    return (
        -HALF * t * s * s,
        ONE - t * t * (FIVE_HALVES - THREE_HALVES * t),
        ONE - s * s * (FIVE_HALVES - THREE_HALVES * s),
        -HALF * s * t * t,
    )
