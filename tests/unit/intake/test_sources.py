"""Stored scans: Data Exchange and NXtomo files, real ones where they are at hand."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from bluesky_jit.intake.sources import open_scan

REAL = Path(__file__).parents[4] / "shared" / "data"
needs_real_scans = pytest.mark.skipif(not REAL.exists(), reason="the folder of real scans is not here")


def nxtomo(path: Path, keys: list[int], *, angle_group: str = "entry/data", units: str = "deg") -> np.ndarray:
    frames = np.arange(len(keys) * 6, dtype=np.uint16).reshape(len(keys), 2, 3)
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = frames
        file["entry/data/image_key"] = keys
        file[f"{angle_group}/rotation_angle"] = np.linspace(0, 180, len(keys))
        file[f"{angle_group}/rotation_angle"].attrs["units"] = units
    return frames


def test_nxtomo_frames_are_sorted_by_image_key(tmp_path: Path) -> None:
    path = tmp_path / "scan.nxs"
    frames = nxtomo(path, [2, 1, 0, 0, 3, 0, 1])
    scan = open_scan(path)
    assert (scan.layout, scan.n_projections, scan.frame_shape) == ("NXtomo", 3, (2, 3))
    blocks = list(scan.blocks())
    assert [block.kind for block in blocks] == ["dark", "flat", "flat", "projection"]
    assert (np.concatenate([block.counts for block in blocks]) == frames[[0, 1, 6, 2, 3, 5]]).all()
    assert blocks[-1].angles_rad == pytest.approx(np.deg2rad(np.linspace(0, 180, 7)[[2, 3, 5]]))


def test_darks_and_flats_know_how_many_projections_came_before_them(tmp_path: Path) -> None:
    path = tmp_path / "scan.nxs"
    nxtomo(path, [2, 1, 1, 0, 0, 1, 0, 1, 1, 1, 2])
    blocks = [(block.kind, block.after, len(block)) for block in open_scan(path).blocks(size=2)]
    darks, flats = [("dark", 0, 1), ("dark", 3, 1)], [("flat", 0, 2), ("flat", 2, 1), ("flat", 3, 2), ("flat", 3, 1)]
    assert blocks == [*darks, *flats, ("projection", None, 2), ("projection", None, 1)]


def test_blocks_come_as_they_were_taken_when_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "scan.nxs"
    nxtomo(path, [1, 0, 0, 1, 0, 2])
    taken = [(block.kind, block.acquisition.tolist()) for block in open_scan(path).blocks_as_taken()]
    darks_taken_once = ("dark", [0])
    assert taken == [darks_taken_once, ("flat", [0]), ("projection", [0, 1]), ("flat", [1]), ("projection", [2])]


def test_angles_may_lie_in_the_sample_and_in_radians(tmp_path: Path) -> None:
    path = tmp_path / "scan.nxs"
    nxtomo(path, [0, 0], angle_group="entry/sample", units="rad")
    assert open_scan(path).angles_rad.tolist() == [0.0, 180.0]


def test_long_scans_come_in_blocks(tmp_path: Path) -> None:
    path = tmp_path / "scan.nxs"
    frames = nxtomo(path, [0] * 10)
    blocks = list(open_scan(path).blocks(size=4))
    assert [len(block) for block in blocks] == [4, 4, 2]
    assert (np.concatenate([block.counts for block in blocks]) == frames).all()
    assert np.concatenate([block.acquisition for block in blocks]).tolist() == list(range(10))


@needs_real_scans
def test_the_tooth_scan_is_read() -> None:
    scan = open_scan(REAL / "tooth.h5")
    assert (scan.layout, scan.n_projections, scan.frame_shape) == ("Data Exchange", 181, (2, 640))
    assert scan.counts == {"projection": 181, "dark": 10, "flat": 10}
    assert np.rad2deg(scan.angles_rad[[0, -1]]) == pytest.approx([0, 179], abs=0.01)
    first = next(block for block in scan.blocks() if block.kind == "flat")
    with h5py.File(REAL / "tooth.h5") as file:
        assert (first.counts == np.rint(file["exchange/data_white"][:])).all()


@needs_real_scans
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("k11-18014.nxs", "name the dataset of the angles in intake.angle_key"),
        ("i12_112482.nxs", "pco1-112482.hdf, which"),
    ],
)
def test_a_record_without_angles_or_images_says_what_is_missing(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        open_scan(REAL / name)


def test_other_files_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no scan")
    with pytest.raises(ValueError, match="no HDF5 file"):
        open_scan(text)
    empty = tmp_path / "empty.h5"
    h5py.File(empty, "w").close()
    with pytest.raises(ValueError, match="neither Data Exchange"):
        open_scan(empty)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_scan(tmp_path / "none.h5")
