"""A file without SWMR is read only when it is closed, or as it was flushed."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from bluesky_jit.intake.hdf5_closed import is_closed

IMAGES = np.arange(6 * 64 * 48, dtype=np.uint16).reshape(6, 64, 48)


@pytest.mark.parametrize("libver", ["earliest", "v108", "latest"])
@pytest.mark.parametrize("chunks", [(1, 64, 48), (4, 64, 48)])
def test_a_file_is_closed_when_its_writer_has_closed_it(tmp_path: Path, libver: str, chunks: tuple[int, ...]) -> None:
    path = tmp_path / "frames.h5"
    with h5py.File(path, "w", libver=libver, locking=False) as file:
        assert not is_closed(path)
        dataset = file.create_dataset("data", (0, 64, 48), maxshape=(None, 64, 48), chunks=chunks, dtype=np.uint16)
        for n, image in enumerate(IMAGES):
            dataset.resize(n + 1, axis=0)
            dataset[n] = image
            assert not is_closed(path)
    assert is_closed(path)
    with h5py.File(path, "r+", libver=libver, locking=False) as file:
        file["data"].resize(200, axis=0)
        file["data"][6:] = 1
        assert not is_closed(path)
    assert is_closed(path)


def test_what_is_no_file_of_hdf5_is_not_closed(tmp_path: Path) -> None:
    assert not is_closed(tmp_path / "none.h5")
    path = tmp_path / "text.h5"
    path.write_text("too short")
    assert not is_closed(path)
    path.write_bytes(b"")
    assert not is_closed(path)


def test_a_file_that_was_cut_off_is_not_closed(tmp_path: Path) -> None:
    path = tmp_path / "frames.h5"
    with h5py.File(path, "w", locking=False) as file:
        file["data"] = IMAGES
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - 100)
    assert not is_closed(path)
