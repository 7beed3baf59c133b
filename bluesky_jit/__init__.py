"""Just-in-time learning for live X-ray tomography. Names are imported when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bluesky_jit.intake.callback import JITCallback
    from bluesky_jit.session.wiring import Session
    from bluesky_jit.settings import Settings, load_settings
    from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry
    from bluesky_jit.tomo.grid import Grid

__version__ = "0.1.0"

_PLACES = {
    "JITCallback": "bluesky_jit.intake.callback",
    "Session": "bluesky_jit.session.wiring",
    "Settings": "bluesky_jit.settings",
    "load_settings": "bluesky_jit.settings",
    "ConeGeometry": "bluesky_jit.tomo.geometry",
    "ParallelGeometry": "bluesky_jit.tomo.geometry",
    "Grid": "bluesky_jit.tomo.grid",
}

__all__ = ["ConeGeometry", "Grid", "JITCallback", "ParallelGeometry", "Session", "Settings", "load_settings"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
