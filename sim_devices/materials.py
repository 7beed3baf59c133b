"""What the sample is made of, and how much of the beam each material takes at three photon energies."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

import numpy as np

Energy = Literal["low", "mean", "high"]


class Material(IntEnum):
    """Number the materials; the number is a row of ATTENUATIONS."""

    GAS = 0
    FLUID = 1
    GLASS = 2
    GRANULE = 3
    TABLET = 4


ENERGIES_KEV: dict[Energy, float] = {"low": 40.0, "mean": 50.0, "high": 70.0}

# 1/mm at 40, 50 and 70 keV: tabulated mass attenuation of the elements times density. Water (1.00 g/cm³), borosilicate
# glass (2.23), porous silica (1.6), pressed sodium bicarbonate (1.4). Gas takes nothing that the detector would see.
ATTENUATIONS = np.array(
    [
        [0.0, 0.0, 0.0],
        [0.0268, 0.0227, 0.0194],
        [0.0958, 0.0669, 0.0468],
        [0.0745, 0.0510, 0.0348],
        [0.0406, 0.0321, 0.0258],
    ]
)


def attenuations(energy: Energy) -> np.ndarray:
    """Return float64 (n_materials,) in 1/mm at one energy."""
    try:
        return ATTENUATIONS[:, list(ENERGIES_KEV).index(energy)]
    except ValueError:
        raise ValueError(f"energy is {energy!r}: give one of {', '.join(ENERGIES_KEV)}") from None
