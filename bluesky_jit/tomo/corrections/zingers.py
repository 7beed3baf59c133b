"""Take out zingers: bright spots, up to two pixels across, that a stray photon or cosmic ray leaves in one frame.

A pixel is a zinger when it exceeds all sixteen pixels at a distance of two, by more than noise explains and by more
than they differ among each other, and when most of the eight between fall off at once. Edges, lines and slits of the
sample go on to at least one of the sixteen, and round details of three pixels reach most of the eight, so they stay.
So does a zinger that has something brighter, or another zinger, at a distance of two.
"""

from __future__ import annotations

import numpy as np
from numba import njit

REACH = 2
"""Distance, in pixels, of the ring of pixels compared with: the light of most hits falls on one or two pixels."""
LEAST_DARK = 5
"""Of a zinger's eight neighbours, how many are dark at least: five if it covers a square of two by two pixels."""
DARK = np.float32(0.35)
"""Part of a zinger's excess below which its neighbours count as dark: it tells a hit blurred by a scintillator, with a
standard deviation of up to 0.65 pixels, from a round detail that is three pixels wide at half its height."""
OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}


def remove_zingers(transmission: np.ndarray, threshold: float) -> int:
    """Replace zingers of a transmission, float32 (n_v, n_u) above 0, in place by the median around; return how many.

    threshold: excess, as part of the flat, from which on a pixel of air is a zinger. In the sample's shadow it falls
    with the square root of the transmission, as the noise of photons does, as far as its own square: with fewer photons
    than that, the excess of one is no rare event.
    """
    return int(_remove(transmission, np.float32(threshold)))


@njit(**OPTIONS)
def _remove(transmission, threshold):
    n_v, n_u = transmission.shape
    size = 2 * REACH + 1
    # Rows as they came, with zeros around the frame: whatever is inside exceeds those.
    rows = np.zeros((size, n_u + 2 * REACH), np.float32)
    for v in range(min(REACH, n_v)):
        rows[v, REACH : REACH + n_u] = transmission[v]
    found = 0
    for v in range(n_v):
        # Row v + k lies in buffer (v + k) modulo 5.
        last = rows[(v + 2) % size]
        if v + 2 < n_v:
            last[REACH : REACH + n_u] = transmission[v + 2]
        else:
            last[:] = 0
        first, second, middle, fourth = rows[(v - 2) % size], rows[(v - 1) % size], rows[v % size], rows[(v + 1) % size]
        if _count(first, second, middle, fourth, last, threshold, n_u):
            for u in range(n_u):
                excess = _excess(first, second, middle, fourth, last, threshold, u)
                if excess > 0 and _is_sharp(rows, v, u, excess):
                    transmission[v, u] = _median_around(rows, v, u)
                    found += 1
    return found


@njit(**OPTIONS)
def _count(first, second, middle, fourth, last, threshold, n_u):
    found = np.int32(0)
    for u in range(n_u):
        is_bright = _excess(first, second, middle, fourth, last, threshold, u) > 0
        found += np.int32(1) if is_bright else np.int32(0)
    return found


@njit(forceinline=True, **OPTIONS)
def _higher(a, b):
    return a if a > b else b


@njit(forceinline=True, **OPTIONS)
def _excess(first, second, middle, fourth, last, threshold, u):
    """Return the excess over the ring around it of the pixel at column u of the middle one of five rows; 0 if usual."""
    top = _higher(_higher(_higher(first[u], first[u + 1]), _higher(first[u + 2], first[u + 3])), first[u + 4])
    bottom = _higher(_higher(_higher(last[u], last[u + 1]), _higher(last[u + 2], last[u + 3])), last[u + 4])
    left = _higher(_higher(second[u], middle[u]), fourth[u])
    right = _higher(_higher(second[u + 4], middle[u + 4]), fourth[u + 4])
    around = _higher(_higher(top, bottom), _higher(left, right))
    excess = middle[u + 2] - around
    square = threshold * threshold
    # Nothing around, in the least of frames, is nothing to compare with.
    is_bright = (around > 0) & (excess > 0) & (excess * excess > square * _higher(around, square))
    return excess if is_bright else np.float32(0)


@njit(**OPTIONS)
def _is_sharp(rows, v, u, excess):
    """Say whether a bright pixel stands alone: on even ground, with most of its eight neighbours dark."""
    size = 2 * REACH + 1
    brightest = rows[v % size, u + REACH]
    limit = brightest - (1 - DARK) * excess
    dark = 0
    for dv in range(-REACH, REACH + 1):
        for du in range(-REACH, REACH + 1):
            value = rows[(v + dv) % size, u + du + REACH]
            if max(abs(dv), abs(du)) == REACH:
                # Zeros lie outside the frame.
                if 0 < value < brightest - 2 * excess:
                    return False
            elif value < limit:
                dark += 1
    return dark >= LEAST_DARK


@njit(**OPTIONS)
def _median_around(rows, v, u):
    """Return the median of those pixels at a distance of two that lie inside the frame; the rows as in `_remove`."""
    size = 2 * REACH + 1
    values = np.empty(size * size, np.float32)
    n = 0
    for dv in range(-REACH, REACH + 1):
        for du in range(-REACH, REACH + 1):
            value = rows[(v + dv) % size, u + du + REACH]
            if max(abs(dv), abs(du)) == REACH and value > 0:
                values[n] = value
                n += 1
    return np.median(values[:n])
