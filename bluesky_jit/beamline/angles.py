"""The order in which angles are taken when the stage steps."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

Order = Literal["sequential", "interlaced", "golden"]
ORDERS: tuple[str, ...] = get_args(Order)
GOLDEN_DEG = 360.0 / ((1 + 5**0.5) / 2)


def angles_deg(order: Order, turns: float, angles_per_turn: int) -> np.ndarray:
    """Return float64 (n,) degrees in [0, 360), in the order of taking them.

    Interlaced: each turn begins a different fraction of a step further on, so that turns fill each other's gaps.
    Golden: every angle falls into the widest gap left, whenever the scan is ended.
    """
    index = np.arange(round(turns * angles_per_turn))
    if order == "golden":
        return index * GOLDEN_DEG % 360.0
    turn, place = np.divmod(index, angles_per_turn)
    fraction = np.array([_bit_reversed(int(n)) for n in turn]) if order == "interlaced" else np.zeros(len(index))
    return (place + fraction) * (360.0 / angles_per_turn)


def _bit_reversed(n: int) -> float:
    """Return n's binary digits mirrored behind the point: 0, 1/2, 1/4, 3/4, 1/8, ... (van der Corput's sequence)."""
    fraction, weight = 0.0, 0.5
    while n:
        fraction += weight * (n & 1)
        n >>= 1
        weight /= 2
    return fraction
