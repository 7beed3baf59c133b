"""Write volumes plane by plane: Zarr, HDF5 or TIFF, by the name's ending."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import tifffile
import zarr

FORMATS = {".zarr": "zarr", ".h5": "hdf5", ".hdf5": "hdf5", ".nxs": "hdf5", ".tif": "tiff", ".tiff": "tiff"}
DATASET = "volume"
CHUNK = 256
"""Points along a chunk's rows and columns: 256 kB a plane, which both disks and viewers like."""


class Planes(Protocol):
    """Take planes of a volume (nz, ny, nx), in any order."""

    def __setitem__(self, key: slice, value: np.ndarray) -> None: ...


class _ZarrPlanes:
    """Planes of a Zarr array, written by another thread while this one waits."""

    def __init__(self, array: Planes, writer: Executor) -> None:
        self._array = array
        self._writer = writer

    def __setitem__(self, key: slice, value: np.ndarray) -> None:
        self._writer.submit(self._array.__setitem__, key, value).result()


@contextmanager
def volume_file(
    path: Path, *, shape: tuple[int, int, int], voxel_mm: float, attributes: Mapping[str, Any]
) -> Iterator[Planes]:
    """Create a float32 volume of attenuation in 1/mm; it gets its name only when all of it is written.

    attributes: what JSON keeps. Raises ValueError for an ending that is not known, FileExistsError for a file that is
    there.
    """
    kind = require_new(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    _remove(part)
    described = {"units": "1/mm", "voxel_mm": voxel_mm, "axes": "zyx", **attributes}
    chunks = (1, min(CHUNK, shape[1]), min(CHUNK, shape[2]))
    try:
        if kind == "zarr":
            with ThreadPoolExecutor(1, thread_name_prefix="zarr") as writer:
                # Zarr's own threads finish what an interrupted call began. This one takes no interrupt, and has ended
                # before the folder goes.
                create = partial(zarr.create_array, part, shape=shape, chunks=chunks, dtype="float32")
                yield _ZarrPlanes(writer.submit(create, attributes=described).result(), writer)  # pyright: ignore[reportArgumentType]
        elif kind == "hdf5":
            with h5py.File(part, "w") as file:
                dataset = file.create_dataset(DATASET, shape=shape, dtype="float32", chunks=chunks)
                for name, value in described.items():
                    dataset.attrs[name] = value if isinstance(value, str | float | int) else json.dumps(value)
                yield dataset  # pyright: ignore[reportReturnType]
        else:
            # ImageJ and its kin read the spacing from here.
            note = {"axes": "ZYX", "spacing": voxel_mm, "unit": "mm", "description": json.dumps(described)}
            resolution = (1 / voxel_mm, 1 / voxel_mm)
            planes = tifffile.memmap(
                part, shape=shape, dtype=np.float32, bigtiff=True, metadata=note, resolution=resolution
            )
            yield planes  # pyright: ignore[reportReturnType]
            planes.flush()
            del planes
    except BaseException:
        _remove(part)
        raise
    part.rename(path)


def require_new(path: Path) -> str:
    """Return a volume's format; raise when its ending is not known, it is there already, or cannot be written."""
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path} ends in {path.suffix or 'nothing'!r}: give one of {', '.join(FORMATS)}")
    if path.exists():
        raise FileExistsError(f"{path} exists already: give another name, or remove it first")
    folder = existing_folder(path)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"nothing can be written to {folder} ({error.strerror}): give another place for {path}"
        ) from error
    return kind


def require_room(path: Path, n_bytes: int, what: str) -> None:
    """Raise OSError where a disk is too full for a file: mapped memory without a disk behind it ends the process."""
    free = shutil.disk_usage(existing_folder(path)).free
    if n_bytes > free:
        raise OSError(
            f"{what} takes {n_bytes / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free at {path.parent}: give another "
            "place"
        )


def require_room_for_volume(path: Path, shape: tuple[int, int, int]) -> None:
    """Raise OSError where a disk is too full for a volume, before hours of work."""
    # Zarr compresses, so that nobody knows what it takes; it says by itself when there is no room.
    if FORMATS[path.suffix.lower()] != "zarr":
        require_room(path, math.prod(shape) * np.dtype(np.float32).itemsize, f"the volume {path.name}")


def existing_folder(path: Path) -> Path:
    """Return the nearest folder above a path that is there."""
    return next(folder for folder in path.absolute().parents if folder.exists())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
