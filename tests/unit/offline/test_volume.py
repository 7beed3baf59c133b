"""Stored scans become volumes: true values, in every format, or one clear message and no file."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import matplotlib.image
import numpy as np
import pytest
import tifffile
import zarr
from analytic_balls import BEAM, DARK, Ball, counts_of, line_integrals

from bluesky_jit.intake.sources import open_scan
from bluesky_jit.offline.volume import reconstruct
from bluesky_jit.settings import load_settings
from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry

CONE = ConeGeometry(n_u=48, n_v=32, pixel_mm=0.5, source_axis_mm=60, source_detector_mm=120, axis_offset_mm=0.3)
PARALLEL = ParallelGeometry(n_u=48, n_v=12, pixel_mm=0.25, axis_offset_mm=-0.6)
BALLS = [
    Ball(centre=(1.2, -0.8, 0.1), radius=2.2, mu=0.06, soft=True),
    Ball(centre=(-2.0, 1.0, -0.2), radius=1.6, mu=0.09, soft=True),
]


def write_scan(path, geometry, arc_deg, n, *, flats=2, balls=BALLS):
    """Write a Data Exchange file of balls."""
    degrees = np.arange(n) * arc_deg / n
    with h5py.File(path, "w") as file:
        file["exchange/data"] = counts_of(line_integrals(geometry, balls, np.deg2rad(degrees)))
        file["exchange/theta"] = degrees
        file["exchange/data_dark"] = np.full((2, geometry.n_v, geometry.n_u), DARK, np.uint16)
        if flats:
            file["exchange/data_white"] = np.full((flats, geometry.n_v, geometry.n_u), DARK + BEAM, np.uint16)
    return open_scan(path)


def settings_for(geometry, **changes):
    own = {
        "kind": geometry.kind,
        "pixel_mm": str(geometry.pixel_mm),
        "axis_offset_mm": str(geometry.axis_offset_mm),
    }
    if geometry.kind == "cone":
        own |= {name: str(getattr(geometry, name)) for name in ("source_axis_mm", "source_detector_mm")}
    return load_settings().changed({"geometry": own, **changes}, origin="test")


def truth_of(grid):
    return sum(ball.attenuation(grid.points()) for ball in BALLS)


@pytest.fixture(scope="module")
def cone_scan(tmp_path_factory):
    return write_scan(tmp_path_factory.mktemp("scan") / "cone.h5", CONE, 360, 240)


def test_a_cone_scan_becomes_a_volume_of_true_attenuation(cone_scan, tmp_path):
    volume = reconstruct(cone_scan, tmp_path / "cone.zarr", settings_for(CONE))
    planes = zarr.open_array(tmp_path / "cone.zarr", mode="r")
    assert planes.shape == volume.grid.shape
    middle = volume.grid.shape[0] // 2
    error = (np.asarray(planes) - truth_of(volume.grid))[middle - 2 : middle + 2]
    assert np.sqrt(np.mean(error**2)) < 2e-3
    assert abs(error.mean()) < 2e-4
    assert volume.warnings == ()


@pytest.mark.parametrize("ending", [".zarr", ".h5", ".tif"])
def test_every_format_holds_the_same_voxels_and_says_where_they_are(cone_scan, tmp_path, ending):
    path = tmp_path / f"volume{ending}"
    volume = reconstruct(cone_scan, path, settings_for(CONE), heights_mm=(-1.0, 1.0))
    if ending == ".zarr":
        array = zarr.open_array(path, mode="r")
        voxels, told = np.asarray(array), dict(array.attrs)
    elif ending == ".h5":
        with h5py.File(path) as file:
            voxels, told = file["volume"][()], dict(file["volume"].attrs)
        told["origin_mm"] = json.loads(told["origin_mm"])
    else:
        with tifffile.TiffFile(path) as file:
            voxels, told = file.asarray(), json.loads(file.shaped_metadata[0]["description"])
    again = reconstruct(cone_scan, tmp_path / "again.h5", settings_for(CONE), heights_mm=(-1.0, 1.0))
    with h5py.File(again.path) as file:
        np.testing.assert_array_equal(voxels, file["volume"][()])
    assert told["units"] == "1/mm"
    assert told["voxel_mm"] == pytest.approx(CONE.voxel_mm)
    assert told["origin_mm"] == pytest.approx(volume.grid.origin)
    assert voxels.shape[0] == 9
    assert volume.grid.origin[2] == pytest.approx(-1.0)


def test_a_picture_shows_the_middle_slices(cone_scan, tmp_path):
    volume = reconstruct(cone_scan, tmp_path / "cone.zarr", settings_for(CONE))
    assert volume.picture == tmp_path / "cone.zarr.png"
    pixels = matplotlib.image.imread(volume.picture)
    assert pixels.shape[1] > 2 * pixels.shape[0]
    assert np.ptp(pixels[..., :3]) > 0.9


def test_projections_that_do_not_fit_the_memory_go_to_a_scratch_file(cone_scan, tmp_path):
    plain = reconstruct(cone_scan, tmp_path / "plain.h5", settings_for(CONE))
    small = reconstruct(cone_scan, tmp_path / "small.h5", settings_for(CONE, tomo={"memory_gb": "0.0001"}))
    with h5py.File(plain.path) as one, h5py.File(small.path) as other:
        np.testing.assert_array_equal(one["volume"][()], other["volume"][()])
    assert {path.name for path in tmp_path.iterdir()} == {"plain.h5", "plain.h5.png", "small.h5", "small.h5.png"}


def test_part_of_a_turn_is_weighted_as_a_short_scan(tmp_path):
    scan = write_scan(tmp_path / "short.h5", CONE, 220, 220)
    volume = reconstruct(scan, tmp_path / "short.zarr", settings_for(CONE), heights_mm=(-0.5, 0.5))
    error = np.asarray(zarr.open_array(volume.path, mode="r")) - truth_of(volume.grid)
    assert np.sqrt(np.mean(error**2)) < 2.5e-3
    assert volume.warnings == ()


def test_the_axis_is_found_when_the_settings_ask_for_it(tmp_path):
    scan = write_scan(tmp_path / "parallel.h5", PARALLEL, 180, 240)
    wrong = replace(PARALLEL, axis_offset_mm=0.4)
    volume = reconstruct(scan, tmp_path / "found.zarr", settings_for(wrong, tomo={"axis": "estimate"}))
    assert volume.axis.offset_mm == pytest.approx(PARALLEL.axis_offset_mm, abs=0.1 * PARALLEL.pixel_mm)
    error = np.asarray(zarr.open_array(volume.path, mode="r")) - truth_of(volume.grid)
    assert np.sqrt(np.mean(error[4:-4] ** 2)) < 2e-3


def test_an_axis_that_nothing_shows_is_refused_before_anything_is_written(tmp_path):
    scan = write_scan(tmp_path / "empty.h5", PARALLEL, 180, 60, balls=[])
    with pytest.raises(ValueError, match=r"not sure enough .* Give geometry\.axis_offset_mm"):
        reconstruct(scan, tmp_path / "none.zarr", settings_for(PARALLEL, tomo={"axis": "estimate"}))
    assert [path.name for path in tmp_path.iterdir()] == ["empty.h5"]


def test_rings_are_known_for_the_first_projection_too(tmp_path):
    path = tmp_path / "rings.h5"
    write_scan(path, PARALLEL, 180, 240)
    with h5py.File(path, "r+") as file:
        gain = np.where(np.arange(PARALLEL.n_u) == 31, 0.9, 1.0)
        file["exchange/data"][...] = DARK + (file["exchange/data"][()] - float(DARK)) * gain
    scan = open_scan(path)
    ringed = reconstruct(scan, tmp_path / "ringed.zarr", settings_for(PARALLEL))
    clean = reconstruct(scan, tmp_path / "clean.zarr", settings_for(PARALLEL, tomo={"ring_width": "2"}))
    rms = [
        np.sqrt(np.mean((np.asarray(zarr.open_array(v.path, mode="r")) - truth_of(v.grid)) ** 2))
        for v in (ringed, clean)
    ]
    assert rms[1] < rms[0] / 3


@pytest.mark.parametrize(
    ("name", "heights", "words"),
    [
        ("volume.png", None, r"ends in '\.png': give one of \.zarr"),
        ("volume", None, "ends in 'nothing'"),
        ("there.h5", None, "exists already"),
        ("seen.h5", None, r"seen\.h5\.png, the volume's picture, exists already"),
        ("high.h5", (0.0, 99.0), "give the lower one first, both from -4 to 4 mm"),
        ("down.h5", (1.0, -1.0), "give the lower one first"),
    ],
)
def test_what_cannot_be_written_is_told_before_the_work(cone_scan, tmp_path, name, heights, words):
    (tmp_path / "there.h5").write_text("somebody's")
    (tmp_path / "seen.h5.png").write_text("somebody's")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises((ValueError, FileExistsError), match=words):
        reconstruct(cone_scan, tmp_path / name, settings_for(CONE), heights_mm=heights)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_scan_without_flats_is_refused(tmp_path):
    scan = write_scan(tmp_path / "no-flats.h5", CONE, 360, 8, flats=0)
    with pytest.raises(ValueError, match="has no flats"):
        reconstruct(scan, tmp_path / "volume.h5", settings_for(CONE))
    assert not (tmp_path / "volume.h5").exists()


def test_a_volume_that_is_broken_off_leaves_no_file(cone_scan, tmp_path):
    def interrupt(doing, done, total):
        if doing == "reconstructing planes" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reconstruct(cone_scan, tmp_path / "half.zarr", settings_for(CONE), progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_progress_ends_at_all_of_it(cone_scan, tmp_path):
    told: dict[str, list[tuple[int, int]]] = {}
    reconstruct(
        cone_scan,
        tmp_path / "volume.tif",
        settings_for(CONE),
        progress=lambda doing, done, total: told.setdefault(doing, []).append((done, total)),
    )
    assert list(told) == ["filtering projections", "reconstructing planes"]
    for steps in told.values():
        assert steps[0][0] == 0
        assert steps[-1][0] == steps[-1][1]
        assert len(steps) > 3


needs_tooth = pytest.mark.skipif(
    not (Path(__file__).parents[4] / "shared" / "data" / "tooth.h5").exists(), reason="the real scan is not here"
)


@needs_tooth
def test_the_real_tooth_finds_its_axis_within_half_a_pixel(tmp_path):
    scan = open_scan(Path(__file__).parents[4] / "shared" / "data" / "tooth.h5")
    geometry = ParallelGeometry(n_u=640, n_v=2, pixel_mm=0.001)
    volume = reconstruct(scan, tmp_path / "tooth.zarr", settings_for(geometry, tomo={"axis": "estimate"}))
    assert volume.axis.column == pytest.approx(296.0, abs=0.5)
