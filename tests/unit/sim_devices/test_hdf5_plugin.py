"""Files are laid out as ADCore lays them out, and grow while they are read."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from sim_devices.frame import EPICS_EPOCH_S, Frame, FrameType
from sim_devices.hdf5_plugin import FrameFile

SHAPE = (6, 8)
DATA = "/entry/data/data"
ATTRIBUTES = "/entry/instrument/NDAttributes"


def make_frame(number: int, *, time_s: float = 1_700_000_000.25) -> Frame:
    counts = np.random.default_rng(number).integers(0, 2**16, SHAPE, dtype=np.uint16)
    return Frame(
        counts=counts,
        unique_id=100 + number,
        time_s=time_s + number,
        angle_deg=1.5 * number,
        frame_type=FrameType.PROJECTION,
        phantom_time_s=float(number),
    )


@pytest.mark.parametrize("swmr", [True, False])
def test_frames_are_read_back_as_they_were_written(tmp_path: Path, swmr: bool):
    frames = [make_frame(n) for n in range(5)]
    file = FrameFile(tmp_path / "frames.h5", SHAPE, swmr=swmr)
    for frame in frames:
        file.append(frame)
    file.close()
    with h5py.File(tmp_path / "frames.h5") as stored:
        np.testing.assert_array_equal(stored[DATA][:], [frame.counts for frame in frames])
        assert stored[DATA].chunks == (1, *SHAPE)
        assert stored[DATA].dtype == np.uint16
        assert list(stored[f"{ATTRIBUTES}/NDArrayUniqueId"][:]) == [100, 101, 102, 103, 104]
        assert list(stored[f"{ATTRIBUTES}/Angle"][:]) == [0.0, 1.5, 3.0, 4.5, 6.0]
        assert list(stored[f"{ATTRIBUTES}/FrameType"][:]) == [2] * 5


def test_the_detector_group_and_the_data_group_hold_one_dataset(tmp_path: Path):
    file = FrameFile(tmp_path / "frames.h5", SHAPE, swmr=False)
    file.append(make_frame(0))
    file.close()
    with h5py.File(tmp_path / "frames.h5") as stored:
        assert stored["/entry/instrument/detector/data"] == stored[DATA]
        assert stored["/entry"].attrs["NX_class"] == "NXentry"
        assert stored["/entry/data"].attrs["NX_class"] == "NXdata"


def test_time_stamps_count_from_the_epics_epoch(tmp_path: Path):
    file = FrameFile(tmp_path / "frames.h5", SHAPE, swmr=False)
    file.append(make_frame(0, time_s=EPICS_EPOCH_S + 1000.25))
    file.close()
    with h5py.File(tmp_path / "frames.h5") as stored:
        assert stored[f"{ATTRIBUTES}/NDArrayTimeStamp"][0] == 1000.25
        assert stored[f"{ATTRIBUTES}/NDArrayEpicsTSSec"][0] == 1000
        assert stored[f"{ATTRIBUTES}/NDArrayEpicsTSnSec"][0] == 250_000_000


def test_a_reader_follows_a_swmr_file_while_it_grows(tmp_path: Path):
    file = FrameFile(tmp_path / "frames.h5", SHAPE, swmr=True)
    assert file.append(make_frame(0))
    with h5py.File(tmp_path / "frames.h5", "r", swmr=True) as reader:
        data, angles = reader[DATA], reader[f"{ATTRIBUTES}/Angle"]
        assert data.shape[0] == 1
        file.append(make_frame(1))
        data.refresh()
        angles.refresh()
        assert (data.shape[0], angles.shape[0]) == (2, 2)
        np.testing.assert_array_equal(data[1], make_frame(1).counts)
    file.close()


def test_flushes_come_as_often_as_asked(tmp_path: Path):
    file = FrameFile(tmp_path / "frames.h5", SHAPE, swmr=True, flush_every=3)
    assert [file.append(make_frame(n)) for n in range(6)] == [False, False, True, False, False, True]
    file.close()


def test_without_swmr_nothing_is_flushed(tmp_path: Path):
    file = FrameFile(tmp_path / "frames.h5", SHAPE, swmr=False)
    assert not file.append(make_frame(0))
    file.close()


def test_a_file_that_exists_is_never_written_over(tmp_path: Path):
    FrameFile(tmp_path / "frames.h5", SHAPE, swmr=False).close()
    with pytest.raises(FileExistsError):
        FrameFile(tmp_path / "frames.h5", SHAPE, swmr=False)
