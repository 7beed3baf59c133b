"""Refuse what does not fit the memory, before it is asked for."""

from __future__ import annotations

import psutil

GB = 1e9
SHARE = 0.5
"""Part of the free memory that a window may take by default: the file cache, learning and people need the rest."""


def require_memory(n_bytes: int, *, what: str, limit_gb: float | None = None) -> None:
    """Raise ValueError when something takes more than limit_gb, or by default more than half of the free memory."""
    limit = limit_gb * GB if limit_gb is not None else SHARE * psutil.virtual_memory().available
    if n_bytes <= limit:
        return
    origin = "tomo.memory_gb" if limit_gb is not None else "half of the free memory"
    raise ValueError(
        f"{what} needs {n_bytes} bytes ({n_bytes / GB:.3g} GB) and may take {limit / GB:.2g} GB ({origin}): keep fewer "
        "projections (tomo.turns), bin the detector or read out less of it, or raise tomo.memory_gb"
    )
