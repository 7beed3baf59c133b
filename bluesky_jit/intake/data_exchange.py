"""Read Data Exchange files, as beamlines of the APS, the ALS and others write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bluesky_jit.intake.hdf5_values import ENERGIES_KEV, LENGTHS_MM, TIMES_S, angles_rad, quantity, settings_of
from bluesky_jit.intake.stored_scan import HDF5Frames, StoredFrames, StoredScan
from bluesky_jit.messages import FrameKind

DATASETS: dict[FrameKind, str] = {
    "projection": "exchange/data",
    "dark": "exchange/data_dark",
    "flat": "exchange/data_white",
}
INSTRUMENT = "measurement/instrument"
OBJECTIVES = (f"{INSTRUMENT}/detection_system/objective", f"{INSTRUMENT}/objective")
"""Where tomoscan records what magnifies the picture; `resolution` is the pixel's size at the sample, in microns."""


def is_data_exchange(file: h5py.File) -> bool:
    return isinstance(file.get(DATASETS["projection"]), h5py.Dataset)


def read_data_exchange(path: Path, file: h5py.File) -> StoredScan:
    """Find the frames and angles; raise ValueError where they cannot be told."""
    data: Any = file[DATASETS["projection"]]
    if data.ndim != 3:
        raise ValueError(f"{path} has data of the shape {data.shape}: projections (n, rows, columns) are wanted")
    theta = file.get("exchange/theta")
    if not isinstance(theta, h5py.Dataset):
        raise ValueError(
            f"{path} has no /exchange/theta: its projections cannot be placed; add their angles in degrees"
        )
    angles = angles_rad(theta)
    order = _Order.read(file)
    numbers, lost = np.arange(len(data)), ()
    if len(angles) > len(data):
        numbers, lost = _numbers(path, order, len(data), len(angles))
    if len(numbers) != len(data) or len(angles) <= numbers.max(initial=-1):
        raise ValueError(f"{path} has {len(data)} projections and {len(angles)} angles: they must be as many")
    store = HDF5Frames(path=path, dataset=DATASETS["projection"])
    # A projection that cannot be placed is of no use; it keeps its number.
    placed = np.isfinite(angles[numbers])
    lost += tuple(f"{store.name(int(row))} has no angle" for row in np.flatnonzero(~placed))
    rows = np.flatnonzero(placed)
    if not len(rows):
        raise ValueError(f"{path} has no projections with an angle")
    frames: dict[FrameKind, StoredFrames] = {
        "projection": StoredFrames(store=store, rows=rows, numbers=numbers[rows] - numbers[rows[0]])
    }
    for kind in ("dark", "flat"):
        dataset = file.get(DATASETS[kind])
        if isinstance(dataset, h5py.Dataset) and len(dataset):
            after = order.after(kind, len(dataset))
            frames[kind] = StoredFrames(
                store=HDF5Frames(path=path, dataset=DATASETS[kind]),
                rows=np.arange(len(dataset)),
                after=None if after is None else np.searchsorted(rows, after),
            )
    return StoredScan(
        path=path,
        layout="Data Exchange",
        frames=frames,
        angles_rad=angles[numbers][rows],
        frame_shape=(int(data.shape[1]), int(data.shape[2])),
        times_s=order.times_s(len(data))[rows],
        says=settings_of(
            # Who writes this layout has a synchrotron's beam.
            geometry={"kind": "parallel", "pixel_mm": _pixel_mm(file)},
            tomo={
                "energy_kev": quantity(file, [f"{INSTRUMENT}/monochromator/energy"], ENERGIES_KEV),
                "propagation_mm": quantity(
                    file, [f"{INSTRUMENT}/camera_motor_stack/setup/camera_distance"], LENGTHS_MM
                ),
            },
        ),
        exposure_s=quantity(file, [f"{INSTRUMENT}/detector/exposure_time"], TIMES_S, default="s"),
        lost=lost,
    )


def _pixel_mm(file: h5py.File) -> float | None:
    """Return the pixel's size at the sample."""
    at_sample = quantity(file, [f"{place}/resolution" for place in OBJECTIVES], LENGTHS_MM, default="microns")
    if at_sample is not None:
        return at_sample
    detector = f"{INSTRUMENT}/detector"
    names = [f"{detector}/{name}" for name in ("actual_pixel_size_x", "actual_pixel_size", "resolution")]
    # The camera's own pixels are those at the sample only where nothing magnifies.
    if not any(place in file for place in OBJECTIVES):
        names += [f"{detector}/{name}" for name in ("x_pixel_size", "pixel_size_x", "pixel_size")]
    return quantity(file, names, LENGTHS_MM)


def _numbers(path: Path, order: _Order, n: int, n_angles: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return which of the angles the n projections have, and which projections were lost, by the detector's count."""
    ids = order.ids(n)
    numbers = ids - ids[0] if len(ids) else ids
    if len(numbers) != n or (np.diff(numbers) <= 0).any():
        raise ValueError(
            f"{path} has {n} projections and {n_angles} angles: some projections were lost, and without the detector's "
            "count (/defaults/NDArrayUniqueId, /defaults/HDF5FrameLocation) nobody knows which"
        )
    missing = sorted(set(range(n_angles)) - set(numbers.tolist()))
    return numbers, tuple(f"projection {number} of {path} was not recorded" for number in missing)


class _Order:
    """Tell what areaDetector's file plugin kept of each frame as it came: where it went, its id and its time."""

    def __init__(self, places: np.ndarray, ids: np.ndarray, times: np.ndarray) -> None:
        self._places, self._ids, self._times = places, ids, times

    @classmethod
    def read(cls, file: h5py.File) -> _Order:
        columns = [
            np.asarray(node[()]).ravel() if isinstance(node := file.get(f"defaults/{name}"), h5py.Dataset) else None
            for name in ("HDF5FrameLocation", "NDArrayUniqueId", "NDArrayTimeStamp")
        ]
        places = columns[0]
        if places is None:
            return cls(np.array([], dtype="S1"), np.array([]), np.array([]))
        return cls(
            np.char.strip(places.astype("S"), b"/\0 "),
            *(column if column is not None and len(column) == len(places) else np.array([]) for column in columns[1:]),
        )

    def _of(self, column: np.ndarray, kind: FrameKind) -> np.ndarray:
        return column[self._places == DATASETS[kind].encode()] if len(column) else column

    def ids(self, n: int) -> np.ndarray:
        """Return the detector's count of each of n projections; nothing where it is not there."""
        ids = self._of(self._ids, "projection").astype(np.int64)
        return ids if len(ids) == n else ids[:0]

    def times_s(self, n: int) -> np.ndarray:
        """Return when each of n projections was taken, NaN where that is not recorded."""
        times = self._of(self._times, "projection").astype(np.float64)
        return times if len(times) == n else np.full(n, np.nan)

    def after(self, kind: FrameKind, n: int) -> np.ndarray | None:
        """Return how many projections had been taken before each of n darks or flats; None where nobody knows."""
        if kind == "projection" or not len(self._places):
            return None
        taken = np.cumsum(self._places == DATASETS["projection"].encode())
        after = self._of(taken, kind)
        return after if len(after) == n else None
