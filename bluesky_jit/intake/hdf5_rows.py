"""Read rows of HDF5 files, also while they grow (SWMR)."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlparse

import h5py
import numpy as np

from bluesky_jit.intake.counts import UnusableCounts
from bluesky_jit.intake.hdf5_extent import rows_in_file
from bluesky_jit.intake.rows import FramesNotReady, runs_of
from bluesky_jit.messages import Asset


class HDF5Rows:
    """Read rows from files on this machine; they stay open between messages."""

    def __init__(self) -> None:
        self._open: dict[str, h5py.File] = {}

    def read(self, asset: Asset, wanted: np.ndarray | None = None) -> np.ndarray:
        """Return the asset's rows, or those of them that are wanted, bool (count,).

        Raises FramesNotReady unless the file has all of the asset's rows.
        """
        dataset = self._dataset(asset)
        last = asset.first + asset.count
        try:
            if dataset.shape[0] < last:
                dataset.refresh()
            available = int(dataset.shape[0]) - asset.first
            available = min(available, rows_in_file(dataset, asset.first, min(available, asset.count)))
            rows = _rows(dataset, asset, wanted) if available >= asset.count else None
        except (OSError, RuntimeError, KeyError) as error:
            # h5py raises any of them for a file whose writer ended in the middle of a write.
            self._forget(asset)
            raise FramesNotReady(f"{path_of(asset.uri)} cannot be read: {error}") from error
        if rows is None:
            # A file opened before its writer turned SWMR on shows its new rows only when it is opened again.
            self._forget(asset)
            raise FramesNotReady(
                f"{asset.dataset} of {asset.uri} has {max(available, 0)} of {asset.count} rows from {asset.first} on",
                available=max(available, 0),
            )
        if asset.rows is not None and dataset.shape[0] != asset.rows:
            raise UnusableCounts(
                "unpaired",
                f"{asset.dataset} of {path_of(asset.uri)} has {dataset.shape[0]} rows, and there are {asset.rows} "
                "frames: nobody can tell which belong together, so these frames were left out",
            )
        return rows

    def has(self, asset: Asset) -> bool:
        """Tell whether the file has such a dataset."""
        try:
            self._dataset(asset)
        except FramesNotReady:
            return False
        return True

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def _dataset(self, asset: Asset) -> h5py.Dataset:
        path = path_of(asset.uri)
        if asset.uri not in self._open:
            try:
                self._open[asset.uri] = h5py.File(path, "r", swmr=asset.swmr, locking=False)
            except OSError as error:
                raise FramesNotReady(f"{path} cannot be opened yet: {error}") from error
        dataset = self._open[asset.uri].get(asset.dataset)
        if not isinstance(dataset, h5py.Dataset):
            self._forget(asset)
            raise FramesNotReady(f"{path} has no dataset {asset.dataset}")
        return dataset

    def _forget(self, asset: Asset) -> None:
        file = self._open.pop(asset.uri, None)
        if file is not None:
            file.close()


def _rows(dataset: h5py.Dataset, asset: Asset, wanted: np.ndarray | None) -> np.ndarray:
    if wanted is None:
        return dataset[asset.first : asset.first + asset.count]
    parts = [dataset[asset.first + begin : asset.first + end] for begin, end in runs_of(wanted)]
    return np.concatenate([np.zeros((0, *dataset.shape[1:]), dtype=dataset.dtype), *parts])


def is_here(uri: str) -> bool:
    """Tell whether a URI names a file on this machine, which may not exist yet."""
    parts = urlparse(uri)
    return parts.scheme == "file" and parts.netloc in ("", "localhost")


def path_of(uri: str) -> Path:
    """Return the local path of a file URI."""
    if not is_here(uri):
        raise ValueError(
            f"frames are at {uri}: only files on this machine (file://localhost/…) can be read; set tiled.uri to the "
            "Tiled server that has the run"
        )
    return Path(unquote(urlparse(uri).path))
