"""Stored scans: Data Exchange and NXtomo files, real ones where they are at hand."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from bluesky_jit.intake.sources import open_scan
from bluesky_jit.settings import load_settings

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


# ── frames that are lost or spoilt ───────────────────────────────────────────────────────────────────────────────────


def data_exchange(path: Path, n: int = 6, **more: object) -> np.ndarray:
    """Write a Data Exchange file of n frames of 2 × 3 pixels; more: further datasets by name."""
    frames = np.arange(n * 6, dtype=np.uint16).reshape(n, 2, 3) + 100
    with h5py.File(path, "w") as file:
        file.create_dataset("exchange/data", data=frames, chunks=(1, 2, 3), fletcher32=True)
        file["exchange/data_white"] = np.full((2, 2, 3), 1000, np.uint16)
        if "exchange/theta" not in more:
            file["exchange/theta"] = np.arange(n) * 10.0
        for name, value in more.items():
            unit, values = value if isinstance(value, tuple) else ("", value)
            file[name] = values
            if unit:
                file[name].attrs["units"] = unit
    return frames


def spoil(path: Path, row: int) -> None:
    """Change a byte of a row, against its checksum."""
    with h5py.File(path) as file:
        where = file["exchange/data"].id.get_chunk_info(row).byte_offset
    content = bytearray(path.read_bytes())
    content[where] ^= 0xFF
    path.write_bytes(content)


def test_a_spoilt_row_is_named_and_left_out_of_what_is_played(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    frames = data_exchange(path)
    spoil(path, 3)
    told: list[str] = []
    scan = open_scan(path)
    blocks = [block for block in scan.blocks_as_taken(told=told.append) if block.kind == "projection"]
    assert (np.concatenate([block.counts for block in blocks]) == frames[[0, 1, 2, 4, 5]]).all()
    assert blocks[0].acquisition.tolist() == blocks[0].unique_ids.tolist() == [0, 1, 2, 4, 5]
    assert blocks[0].angles_rad == pytest.approx(np.deg2rad([0, 10, 20, 40, 50]))
    [sentence] = told
    assert sentence.startswith(f"row 3 of exchange/data in {path} cannot be read")
    with pytest.raises(ValueError, match=r"exchange/data in .* cannot be read"):
        list(scan.blocks())


def test_a_row_that_is_no_number_is_named_and_left_out_of_what_is_played(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    frames = np.full((4, 2, 3), 100.0, np.float32)
    frames[2, 1, 1] = np.nan
    with h5py.File(path, "w") as file:
        file["exchange/data"] = frames
        file["exchange/theta"] = np.arange(4.0)
    told: list[str] = []
    [block] = open_scan(path).blocks_as_taken(told=told.append)
    assert block.unique_ids.tolist() == [0, 1, 3]
    assert "row 2 of exchange/data" in told[0]
    assert "row 1, column 1 (not finite)" in told[0]


def test_lost_projections_are_known_by_the_detectors_count(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    places = [b"/exchange/data_white"] * 2 + [b"/exchange/data"] * 6
    more = {
        "exchange/theta": np.arange(8) * 10.0,
        "defaults/HDF5FrameLocation": np.array(places),
        "defaults/NDArrayUniqueId": np.array([0, 1, 2, 3, 5, 6, 8, 9]),
        "defaults/NDArrayTimeStamp": np.array([0, 1, 2, 3, 5, 6, 8, 9]) * 0.1,
    }
    data_exchange(path, **more)
    scan = open_scan(path)
    assert np.rad2deg(scan.angles_rad) == pytest.approx([0, 10, 30, 40, 60, 70])
    assert (scan.n_projections, scan.n_taken) == (6, 8)
    assert scan.lost == tuple(f"projection {number} of {path} was not recorded" for number in (2, 5))
    assert scan.times_s == pytest.approx([0.2, 0.3, 0.5, 0.6, 0.8, 0.9])
    [*_, block] = scan.blocks()
    assert block.unique_ids.tolist() == [0, 1, 3, 4, 6, 7]


def test_projections_that_nobody_can_place_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    data_exchange(path, **{"exchange/theta": np.arange(8) * 10.0})
    with pytest.raises(ValueError, match=r"6 projections and 8 angles: .* nobody knows which"):
        open_scan(path)


def test_projections_without_an_angle_are_named_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    data_exchange(path, **{"exchange/theta": np.array([0, 10, np.nan, 30, 40, 50])})
    scan = open_scan(path)
    assert scan.lost == (f"row 2 of exchange/data in {path} has no angle",)
    [_, block] = scan.blocks()
    assert block.unique_ids.tolist() == [0, 1, 3, 4, 5]


def test_frames_marked_as_invalid_are_named(tmp_path: Path) -> None:
    path = tmp_path / "scan.nxs"
    nxtomo(path, [1, 0, 3, 0, 0])
    scan = open_scan(path)
    assert scan.lost == (f"row 2 of entry/data/data in {path} is marked as invalid",)
    [*_, block] = scan.blocks()
    assert block.unique_ids.tolist() == [0, 2, 3]


# ── what files say of the set-up ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("more", "pixel_mm"),
    [
        ({}, None),
        ({"measurement/instrument/detection_system/objective/resolution": ("microns", 1.17)}, 1.17e-3),
        ({"measurement/instrument/objective/resolution": 2.0}, 2.0e-3),
        ({"measurement/instrument/detector/pixel_size": ("mm", 0.65e-3)}, 0.65e-3),
        ({"measurement/instrument/detector/pixel_size": 6.5}, None),
        ({"measurement/instrument/detector/actual_pixel_size_x": ("m", 2.2e-6)}, 2.2e-3),
        (
            {
                "measurement/instrument/detector/pixel_size": ("um", 3.45),
                "measurement/instrument/detection_system/objective/magnification": 5.0,
            },
            None,
        ),
    ],
    ids=["silent", "objective", "no unit", "no objective", "camera without unit", "actual", "camera behind objective"],
)
def test_data_exchange_tells_the_pixels_size_at_the_sample(
    tmp_path: Path, more: dict[str, object], pixel_mm: float | None
) -> None:
    path = tmp_path / "scan.h5"
    data_exchange(path, **more)
    geometry = open_scan(path).says["geometry"]
    assert geometry["kind"] == "parallel"
    assert geometry.get("pixel_mm") == (None if pixel_mm is None else pytest.approx(pixel_mm))


def test_data_exchange_tells_energy_exposure_and_distance(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    more = {
        "measurement/instrument/monochromator/energy": ("eV", [25000.0]),
        "measurement/instrument/detector/exposure_time": ("s", 0.1),
        "measurement/instrument/camera_motor_stack/setup/camera_distance": ("mm", [150.0]),
    }
    data_exchange(path, **more)
    scan = open_scan(path)
    assert scan.says["tomo"] == {"energy_kev": pytest.approx(25.0), "propagation_mm": 150.0}
    assert scan.tomo == {"exposure_s": 0.1}


def add(path: Path, **values: tuple[str, object]) -> None:
    with h5py.File(path, "a") as file:
        for name, (unit, value) in values.items():
            file[name] = value
            file[name].attrs["units"] = unit


def test_nxtomo_tells_a_parallel_beams_set_up(tmp_path: Path) -> None:
    path = tmp_path / "scan.nxs"
    nxtomo(path, [1, 0, 0])
    add(
        path,
        **{
            "entry/instrument/detector/x_pixel_size": ("m", 6.5e-6),
            "entry/sample/x_pixel_size": ("um", 0.65),
            "entry/instrument/detector/distance": ("m", 0.2),
            "entry/instrument/beam/incident_energy": ("keV", 19.0),
            "entry/instrument/source/distance": ("m", -55.0),
        },
    )
    assert open_scan(path).says == {
        "geometry": {"kind": "parallel", "pixel_mm": pytest.approx(0.65e-3)},
        "tomo": {"energy_kev": 19.0, "propagation_mm": pytest.approx(200.0)},
    }


def test_nxtomo_tells_a_tubes_cone(tmp_path: Path) -> None:
    path = tmp_path / "scan.nxs"
    nxtomo(path, [1, 0, 0])
    add(
        path,
        **{
            "entry/instrument/detector/x_pixel_size": ("mm", 0.15),
            "entry/instrument/detector/distance": ("m", 0.6),
            "entry/instrument/source/distance": ("m", -0.4),
            "entry/instrument/source/type": ("", "Fixed Tube X-ray"),
        },
    )
    cone = {"kind": "cone", "pixel_mm": 0.15, "source_axis_mm": 400.0, "source_detector_mm": 1000.0}
    assert open_scan(path).says == {"geometry": pytest.approx(cone)}


def test_lengths_that_mean_nothing_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "scan.nxs"
    nxtomo(path, [1, 0, 0])
    add(
        path,
        **{
            "entry/instrument/detector/x_pixel_size": ("undefined", np.nan),
            "entry/instrument/detector/distance": ("furlong", 3.0),
        },
    )
    assert open_scan(path).says == {"geometry": {"kind": "parallel"}}


@needs_real_scans
def test_a_scan_of_diamond_is_read_with_its_images_beside_it_and_even_steps() -> None:
    """Its record links to images in a folder that is not there, and to angles that nobody kept."""
    settings = load_settings(environment={}, tomo={"angles_per_turn": 6000})
    scan = open_scan(REAL / "k11-18014.nxs", settings)
    assert (scan.counts, scan.frame_shape) == ({"projection": 3001, "flat": 100, "dark": 100}, (22, 26))
    assert np.rad2deg(scan.angles_rad[[0, 1, -1]]) == pytest.approx([0, 0.06, 180])
    assert scan.angle_source == "plan arguments"
    # 50 flats and darks before, 50 after.
    assert [block.after for block in scan.blocks(kinds=("flat",))] == [0, 3001]
    assert scan.exposure_s == 0.02


def test_the_setting_names_the_angles_that_a_file_calls_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "scan.nxs"
    nxtomo(path, [1, 0, 0, 0], angle_group="elsewhere")
    with h5py.File(path, "a") as file:
        file["entry/data/zebraSM1"] = [0.0, 0.0, 0.1, 0.2]
    found = open_scan(path, load_settings(environment={}, intake={"angle_key": "zebraSM1"}))
    assert np.rad2deg(found.angles_rad) == pytest.approx([0, 0.1, 0.2])
    with pytest.raises(ValueError, match=r"has no zebra, neither in .*: correct intake\.angle_key"):
        open_scan(path, load_settings(environment={}, intake={"angle_key": "zebra"}))


def test_a_file_that_was_copied_in_part_says_how_much_of_it_is_here(tmp_path: Path) -> None:
    path = tmp_path / "scan.nxs"
    nxtomo(path, [2, 1, *[0] * 200])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"is cut off \\({len(whole) // 2} of {len(whole)} bytes\\): copy it again"):
        open_scan(path)


def test_angles_that_are_words_are_named_with_their_file(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["exchange/data"] = np.ones((2, 4, 5), np.uint16)
        file["exchange/theta"] = ["north", "south"]
    with pytest.raises(ValueError, match=r"/exchange/theta of .*scan\.h5 holds no angles"):
        open_scan(path)
