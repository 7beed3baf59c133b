"""Folders of a FleX-ray scanner: TIFF files and `scan settings.txt`, in the layout of CWI's published data sets."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from bluesky_jit.intake.sources import open_scan

SETTINGS = """\
ScanID : 190524_101112
START
date: 24/05/2019; time: 10:11:12

SCAN DURATION : 10 minutes
COR : 486.000000
VC : 767.500000
HC : 971.500000
SDD : 199.000000
SOD : 66.000000
Voxel size : 49.615320
Magnification : 3.015152

Sample size : 0.000000 mm
X-ray tube : hamamatsu
Tube voltage : 40.000000
Exposure time (ms) : 80.000000
Number of averages : 1.000000
Original pixel size : 0.074800
Imaging mode : HW2SW1High
Binning value : 2
Binned pixel size : 0.149600
ROI (LTRB) : 32,8,1943,1527

Script summary:
tra_obj : 0.000000; tra_det : -24.000000
# projections: {n}
Start angle : 0.000000
Last angle : 360.000000
# pre flat fields: {before}
# post flat fields: {behind}
# offset images: 1
"""


def folder(path: Path, n: int = 5, *, before: int = 1, behind: int = 1, pages: int = 1, **changes: str) -> np.ndarray:
    """Write a folder of n projections of 2 × 3 pixels, and return them as the pictures are."""
    path.mkdir()
    frames = np.arange(n * 6, dtype=np.uint16).reshape(n, 2, 3) + 100
    text = SETTINGS.format(n=n, before=before, behind=behind)
    for old, new in changes.items():
        text = text.replace(old.replace("_", " "), new)
    (path / "scan settings.txt").write_bytes(text.replace("\n", "\r\n").encode())
    for number in range(0, n, pages):
        tifffile.imwrite(
            path / f"scan_{number // pages:06d}.tif", frames[number : number + pages], photometric="minisblack"
        )
    tifffile.imwrite(path / "di000000.tif", np.full((2, 3), 10, np.uint16))
    for number in range(2):
        tifffile.imwrite(path / f"io{number:06d}.tif", np.full((2, 3), 1000 + number, np.uint16))
    return frames


def test_frames_come_with_their_lowest_row_first_and_their_angles_clockwise(tmp_path: Path) -> None:
    pictures = folder(tmp_path / "scan")
    scan = open_scan(tmp_path / "scan")
    assert (scan.layout, scan.counts) == ("FleX-ray", {"dark": 1, "flat": 2, "projection": 5})
    *_, block = scan.blocks()
    assert (block.counts == pictures[:, ::-1]).all()
    # Both ends of the turn are measured.
    assert np.rad2deg(block.angles_rad) == pytest.approx([0, -90, -180, -270, -360])


def test_the_settings_tell_the_set_up(tmp_path: Path) -> None:
    folder(tmp_path / "scan")
    scan = open_scan(tmp_path / "scan")
    geometry = dict(scan.says["geometry"])
    assert geometry.pop("kind") == "cone"
    assert geometry == pytest.approx(
        {
            "pixel_mm": 0.1496,
            "source_axis_mm": 66.0,
            "source_detector_mm": 199.0,
            # The middle of the region, 32 to 1943 of 1944 columns and 8 to 1527 of 1536 rows.
            "detector_u_mm": 16 * 0.0748,
        },
        rel=1e-4,
    )
    assert scan.tomo == {"exposure_s": 0.08}


@pytest.mark.parametrize(
    ("before", "behind", "after"), [(1, 1, [0, 5]), (20, 20, [0, 5]), (2, 0, [0]), (0, 2, [5]), (7, 0, [None])]
)
def test_flats_are_taken_before_and_after_as_the_settings_say(
    tmp_path: Path, before: int, behind: int, after: list[int | None]
) -> None:
    folder(tmp_path / "scan", before=before, behind=behind)
    blocks = open_scan(tmp_path / "scan").blocks(kinds=("flat",))
    assert [block.after for block in blocks] == after


def test_files_of_several_pages_are_read(tmp_path: Path) -> None:
    pictures = folder(tmp_path / "scan", 6, pages=3)
    [block] = open_scan(tmp_path / "scan").blocks(kinds=("projection",))
    assert (block.counts == pictures[:, ::-1]).all()


def test_a_file_that_is_missing_is_named_and_the_others_keep_their_angles(tmp_path: Path) -> None:
    folder(tmp_path / "scan")
    (tmp_path / "scan" / "scan_000001.tif").unlink()
    scan = open_scan(tmp_path / "scan")
    assert scan.lost == (f"projection 1 is not in {tmp_path / 'scan'}",)
    assert np.rad2deg(scan.angles_rad) == pytest.approx([0, -180, -270, -360])
    [block] = scan.blocks(kinds=("projection",))
    assert (block.unique_ids.tolist(), block.acquisition.tolist()) == ([0, 2, 3, 4], [0, 1, 2, 3])


def test_files_that_are_cut_off_or_of_another_size_are_named_and_left_out(tmp_path: Path) -> None:
    folder(tmp_path / "scan")
    cut, other = (tmp_path / "scan" / f"scan_00000{number}.tif" for number in (2, 4))
    cut.write_bytes(cut.read_bytes()[:40])
    tifffile.imwrite(other, np.zeros((3, 3), np.uint16))
    told: list[str] = []
    blocks = list(open_scan(tmp_path / "scan").blocks_as_taken(told=told.append))
    assert np.concatenate([block.unique_ids for block in blocks if block.kind == "projection"]).tolist() == [0, 1, 3]
    assert [sentence.split(" cannot be read")[0] for sentence in told] == [str(cut), str(other)]
    assert "it has 3×3 and the others 2×3 pixels" in told[1]


def test_a_picture_more_than_announced_ends_the_turn(tmp_path: Path) -> None:
    """CWI's walnuts announce 1200 projections and have 1201, the last at the angle of the first."""
    folder(tmp_path / "scan", **{"# projections: 5": "# projections: 4"})
    assert np.rad2deg(open_scan(tmp_path / "scan").angles_rad) == pytest.approx([0, -90, -180, -270, -360])


def test_sizes_that_contradict_each_other_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder(tmp_path / "scan", **{"Binned pixel size : 0.149600": "Binned pixel size : 0.299200"})
    scan = open_scan(tmp_path / "scan")
    assert scan.says["geometry"]["pixel_mm"] == pytest.approx(0.1496, rel=1e-4)
    records = [record.getMessage() for record in caplog.records if record.name == "bluesky_jit.intake.flexray"]
    assert "set geometry.pixel_mm" in records[0]


def test_a_folder_that_is_no_scan_or_lacks_its_settings_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a folder without scan_….tif"):
        open_scan(tmp_path)
    folder(tmp_path / "scan")
    (tmp_path / "scan" / "scan settings.txt").unlink()
    with pytest.raises(ValueError, match=r"no scan settings\.txt with start and last angle"):
        open_scan(tmp_path / "scan")
