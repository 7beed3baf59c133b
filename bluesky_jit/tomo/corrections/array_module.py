"""Let one formula serve arrays of the CPU and of the GPU."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def array_module(array: Any) -> Any:
    """Return the module that an array's functions are in: cupy for an array on the GPU, otherwise numpy."""
    # Who has an array of cupy's has imported it; nobody else should wait for that.
    cupy = sys.modules.get("cupy")
    return np if cupy is None else cupy.get_array_module(array)
