"""Open stored scans, whatever their layout: Data Exchange and NeXus files, folders of a FleX-ray scanner."""

from __future__ import annotations

from pathlib import Path

from bluesky_jit.intake.angle_unit import require_radians
from bluesky_jit.intake.data_exchange import is_data_exchange, read_data_exchange
from bluesky_jit.intake.flexray import is_flexray, read_flexray
from bluesky_jit.intake.hdf5_values import open_file
from bluesky_jit.intake.nxtomo import AngleWish, find_nxtomo, read_nxtomo
from bluesky_jit.intake.stored_scan import StoredScan
from bluesky_jit.settings import Settings

LAYOUTS = "a Data Exchange or NXtomo file, or a folder of a FleX-ray scanner"


def open_scan(path: str | Path, settings: Settings | None = None) -> StoredScan:
    """Find the frames and angles of a stored scan; settings: say where angles are when the scan does not."""
    path = Path(path)
    wish = AngleWish(key=settings.intake.angle_key, per_turn=settings.tomo.angles_per_turn) if settings else AngleWish()
    scan = _flexray(path) if path.is_dir() else _hdf5(path, wish)
    if scan.angle_source != "plan arguments":
        require_radians(scan.angles_rad, str(path))
    return scan


def _flexray(path: Path) -> StoredScan:
    if not is_flexray(path):
        raise ValueError(f"{path} is a folder without scan_….tif: give {LAYOUTS}")
    return read_flexray(path)


def _hdf5(path: Path, wish: AngleWish) -> StoredScan:
    with open_file(path) as file:
        if is_data_exchange(file):
            return read_data_exchange(path, file)
        group = find_nxtomo(file)
        if group is not None:
            return read_nxtomo(path, file, group, wish)
    raise ValueError(
        f"{path} is neither Data Exchange (no /exchange/data) nor NXtomo (no image_key): its layout is not known here"
    )
