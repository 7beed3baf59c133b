"""Which rows of a dataset are in its file: HDF5 reads zeros where a file was cut off, or was never written."""

from __future__ import annotations

import itertools
import os

import h5py


def rows_in_file(dataset: h5py.Dataset, first: int, count: int) -> int:
    """Return how many rows from `first` on, of `count` at most, lie within the file as it is on disk."""
    if dataset.file.driver != "sec2" or dataset.external:
        return count
    size = os.fstat(dataset.file.id.get_vfd_handle()).st_size
    layout = dataset.id.get_create_plist().get_layout()
    if layout == h5py.h5d.CHUNKED:
        return _chunked(dataset, first, count, size)
    return _contiguous(dataset, first, count, size) if layout == h5py.h5d.CONTIGUOUS else count


def _chunked(dataset: h5py.Dataset, first: int, count: int, size: int) -> int:
    """Return how many rows there are before the first one of which a chunk is missing."""
    rows, *others = dataset.chunks or dataset.shape
    beginnings = [range(0, n, step) for n, step in zip(dataset.shape[1:], others, strict=True)]
    for row in range(first // rows * rows, first + count, rows):
        for place in itertools.product(*beginnings):
            chunk = dataset.id.get_chunk_info_by_coord((row, *place))
            if chunk.byte_offset is None or chunk.byte_offset + chunk.size > size:
                return max(0, row - first)
    return count


def _contiguous(dataset: h5py.Dataset, first: int, count: int, size: int) -> int:
    begin, n = dataset.id.get_offset(), dataset.shape[0]
    if begin is None or not n:
        return 0
    whole = (size - begin) // (dataset.id.get_storage_size() // n)
    return min(max(0, whole - first), count)
