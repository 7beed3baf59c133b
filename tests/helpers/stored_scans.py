"""Stored scans of the simulated sample, in files."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from simulated_run import ANGLES, GEOMETRY, frames


def write_nxtomo(path: Path, *, photons: float = 3000, flats: bool = True, pixel_mm: float | None = None) -> Path:
    """Write a turn of the resting sample as an NXtomo file, with darks, and flats at both ends."""
    parts = frames(turns=1, photons=photons)
    order = [("darks", 2), ("flats", 1), ("primary", 0), ("flats", 1)]
    order = [(name, key) for name, key in order if flats or name != "flats"]
    keys = np.concatenate([np.full(len(parts[name]), key) for name, key in order])
    angles = np.zeros(len(keys))
    angles[keys == 0] = 360.0 * np.arange(ANGLES) / ANGLES
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "entry/instrument/detector/data",
            data=np.concatenate([parts[name] for name, _ in order]),
            chunks=(1, GEOMETRY.n_v, GEOMETRY.n_u),
            fletcher32=True,
        )
        file["entry/instrument/detector/image_key"] = keys
        file["entry/sample/rotation_angle"] = angles
        file["entry/sample/rotation_angle"].attrs["units"] = "degree"
        if pixel_mm is not None:
            file["entry/instrument/detector/x_pixel_size"] = pixel_mm
            file["entry/instrument/detector/x_pixel_size"].attrs["units"] = "mm"
    return path


def spoil(path: Path, dataset: str, row: int) -> None:
    """Change a byte of a row, against its checksum."""
    with h5py.File(path) as file:
        where = file[dataset].id.get_chunk_info(row).byte_offset
    content = bytearray(path.read_bytes())
    content[where] ^= 0xFF
    path.write_bytes(content)
