"""Read NeXus tomography files (NXtomo), as Diamond, the ESRF and others write them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bluesky_jit.intake.hdf5_values import (
    ENERGIES_KEV,
    LENGTHS_MM,
    TIMES_S,
    angles_rad,
    open_file,
    quantity,
    settings_of,
    text,
)
from bluesky_jit.intake.stored_scan import HDF5Frames, StoredFrames, StoredScan
from bluesky_jit.messages import AngleSource, FrameKind

logger = logging.getLogger(__name__)

IMAGE_KEYS: dict[int, FrameKind] = {0: "projection", 1: "flat", 2: "dark"}
INVALID = 3
"""The image key of frames that do not count."""
TIMES = ("CaptureTime", "capture_time", "NDArrayTimeStamp", "timestamp", "time")
"""Datasets beside the image keys in which facilities keep when each frame was taken."""
TUBES = ("tube", "anode", "metal jet")
"""In the words of NXsource for a source that is small and near: its beam is a cone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AngleWish:
    """Say where angles come from in a file that does not name them as NXtomo does: the settings of the same names."""

    key: str = ""
    per_turn: int | None = None


def find_nxtomo(file: h5py.File) -> str | None:
    """Return the group that holds image_key, and data or angles beside them; None where there is no such group."""
    found: list[str] = []

    def look(name: str, node: Any) -> None:
        # A link to a file that is not there is in a group all the same.
        if isinstance(node, h5py.Group) and "image_key" in node and ("data" in list(node) or "rotation_angle" in node):
            found.append(name)

    file.visititems(look)
    with_data = [name for name in found if _images(file, name) is not None]
    return min(with_data or found, key=len, default=None)


def read_nxtomo(path: Path, file: h5py.File, group: str, wish: AngleWish) -> StoredScan:
    """Find the frames and angles; raise ValueError where they cannot be told."""
    image_key: Any = file[f"{group}/image_key"]
    keys = np.asarray(image_key[()]).astype(np.int64).ravel()
    store = _images(file, group)
    if store is None:
        raise ValueError(f"{path} has image keys in {group} but no images beside them{_missing_link(file, group)}")
    with open_file(store.path) as images:
        data: Any = images[store.dataset]
        shape = tuple(int(n) for n in data.shape)
    if len(shape) != 3:
        raise ValueError(f"{store.dataset} of {store.path} has the shape {shape}: frames (n, rows, columns) are wanted")
    angles, source = _angles(path, file, group, keys, wish)
    if not len(keys) == len(angles) == shape[0]:
        raise ValueError(
            f"{path} has {shape[0]} frames, {len(keys)} image keys and {len(angles)} angles: they must be as many"
        )
    # A projection that cannot be placed is of no use; it keeps its number.
    placed = np.isfinite(angles)
    projections = np.flatnonzero((keys == 0) & placed)
    if not len(projections):
        raise ValueError(f"{path} has no projections: no image_key is 0")
    numbers = np.cumsum((keys == 0) | (keys == INVALID)) - 1
    frames: dict[FrameKind, StoredFrames] = {}
    for key, kind in IMAGE_KEYS.items():
        rows = projections if kind == "projection" else np.flatnonzero(keys == key)
        if len(rows):
            frames[kind] = StoredFrames(
                store=store,
                rows=rows,
                numbers=numbers[rows] - numbers[projections[0]] if kind == "projection" else None,
                after=None if kind == "projection" else np.searchsorted(projections, rows),
            )
    times = _times_s(file, group, len(keys))
    return StoredScan(
        path=path,
        layout="NXtomo",
        frames=frames,
        angles_rad=angles[projections],
        angle_source=source,
        frame_shape=(shape[1], shape[2]),
        times_s=times[projections],
        says=_says(file, group),
        exposure_s=quantity(file, [f"{place}/count_time" for place in _detectors(file, group)], TIMES_S, default="s"),
        lost=(
            *(f"{store.name(int(row))} has no angle" for row in np.flatnonzero((keys == 0) & ~placed)),
            *(f"{store.name(int(row))} is marked as invalid" for row in np.flatnonzero(keys == INVALID)),
        ),
    )


def _images(file: h5py.File, group: str) -> HDF5Frames | None:
    """Return the images beside the image keys: here, where their link says, or else beside this file."""
    path = Path(file.filename)
    name = f"{group}/data"
    if isinstance(file.get(name), h5py.Dataset):
        return HDF5Frames(path=path, dataset=name)
    link = file.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        # Folders are often flattened when scans are copied.
        beside = path.parent / Path(link.filename).name
        if beside.is_file():
            with open_file(beside) as images:
                if isinstance(images.get(link.path), h5py.Dataset):
                    return HDF5Frames(path=beside, dataset=link.path)
    return None


def _missing_link(file: h5py.File, group: str) -> str:
    link = file.get(f"{group}/data", getlink=True)
    if isinstance(link, h5py.ExternalLink):
        return f": they are in {link.filename}, which is missing; copy it to that place, or beside this file"
    return ": it may be a record of the scan without its images"


def _angles(
    path: Path, file: h5py.File, group: str, keys: np.ndarray, wish: AngleWish
) -> tuple[np.ndarray, AngleSource]:
    """Return the angle of each frame, and how they are known."""
    entry = group.split("/")[0]
    places = [f"{group}/rotation_angle", f"{entry}/sample/rotation_angle", f"{entry}/tomo_entry/sample/rotation_angle"]
    if wish.key:
        places = [f"{group}/{wish.key}", wish.key]
    for name in places:
        node = file.get(name)
        if isinstance(node, h5py.Dataset):
            return angles_rad(node), "frame attribute"
    if wish.key:
        raise ValueError(f"{path} has no {wish.key}, neither in {group} nor from its root on: correct intake.angle_key")
    if wish.per_turn:
        logger.warning("%s records no angle: even steps are taken, %d a turn, from 0 on", path, wish.per_turn)
        return (np.cumsum(keys == 0) - 1) * (2 * np.pi / wish.per_turn), "plan arguments"
    raise ValueError(
        f"{path} has no rotation_angle beside {group} or in the sample: its projections cannot be placed; name the "
        "dataset of the angles in intake.angle_key, or give tomo.angles_per_turn for even steps"
    )


def _times_s(file: h5py.File, group: str, n: int) -> np.ndarray:
    """Return when each of n frames was taken, NaN where that is not recorded."""
    for name in TIMES:
        node = file.get(f"{group}/{name}")
        if isinstance(node, h5py.Dataset) and node.size == n and node.dtype.kind in "iuf":
            return np.asarray(node[()], dtype=np.float64).ravel()
    return np.full(n, np.nan)


def _detectors(file: h5py.File, group: str) -> tuple[str, ...]:
    entry = group.split("/")[0]
    return (group, f"{entry}/instrument/detector", f"{entry}/tomo_entry/instrument/detector")


def _says(file: h5py.File, group: str) -> dict[str, dict[str, Any]]:
    """Return what the file says of the set-up."""
    entry, detectors = group.split("/")[0], _detectors(file, group)
    source = f"{entry}/instrument/source"
    behind_mm = quantity(file, [f"{place}/distance" for place in detectors], LENGTHS_MM, default="m")
    before_mm = quantity(file, [f"{source}/distance"], LENGTHS_MM, default="m", signed=True)
    energy_kev = quantity(
        file,
        [f"{entry}/beam/incident_energy", f"{entry}/instrument/beam/incident_energy"],
        ENERGIES_KEV,
        default="kev",
    )
    pixels = [f"{place}/x_pixel_size" for place in detectors]
    if any(word in text(file, f"{source}/type").lower() for word in TUBES):
        # NXsource counts distances from the sample, negative against the beam.
        cone = {"kind": "cone", "pixel_mm": quantity(file, pixels, LENGTHS_MM, default="m")}
        if before_mm is not None:
            cone["source_axis_mm"] = abs(before_mm)
            cone["source_detector_mm"] = abs(before_mm) + behind_mm if behind_mm is not None else None
        return settings_of(geometry=cone, tomo={"energy_kev": energy_kev})
    # The size at the sample, where the file tells it from the detector's own.
    pixels.insert(0, f"{entry}/sample/x_pixel_size")
    return settings_of(
        geometry={"kind": "parallel", "pixel_mm": quantity(file, pixels, LENGTHS_MM, default="m")},
        tomo={"energy_kev": energy_kev, "propagation_mm": behind_mm},
    )
