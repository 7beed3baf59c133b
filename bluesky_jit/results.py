"""Read back what was reconstructed from a run, as xarray with coordinates in mm."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from tiled.queries import Eq

from bluesky_jit.archive import jit_catalog


def results(uid: str, client: Any) -> dict[str, xr.Dataset]:
    """Return the records of the raw run with that uid: a Dataset per slice, and `learning`.

    client: a Tiled client of the server's root. The images of a slice have dimensions (time, y, x), where x runs along
    the slice's columns and y along its rows, both in mm from the point nearest the sample's origin.
    """
    run = linked_run(uid, client)
    return {name: _dataset(run[name]) for name in run}


def linked_run(uid: str, client: Any) -> Any:
    """Return the linked run, newest first if there are several, of the raw run with that uid."""
    found = jit_catalog(client).search(Eq("start.raw_run", uid))
    if len(found) == 0:
        raise KeyError(f"nothing was reconstructed from run {uid}: give the full uid of a raw run, or wait a moment")
    return found.values().last()


def _dataset(stream: Any) -> xr.Dataset:
    found = stream.read()
    found = found.drop_vars([name for name in found.variables if name.startswith("ts_") or name == "seq_num"])
    if "raw" not in found:
        return found
    # A slice may be moved during a run: the axes are those of the latest record, and every record has its own grid.
    return found.assign_coords({axis: _axis_mm(found, axis, found.sizes[axis]) for axis in "yx"})


def _axis_mm(found: xr.Dataset, axis: str, n: int) -> tuple[str, np.ndarray, dict[str, str]]:
    """Return the positions of n points along an axis of the slice, 0 where it passes the sample's origin."""
    step, origin = (
        np.array([float(found[f"{vector}_{c}_mm"][-1]) for c in "xyz"]) for vector in (f"{axis}_step", "origin")
    )
    length = float(np.linalg.norm(step))
    start = float(origin @ step) / length
    return axis, start + length * np.arange(n), {"units": "mm"}
