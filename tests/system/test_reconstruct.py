"""A scan has just been recorded, and `bluesky-jit reconstruct` makes its volume: true values, or one clear message."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import pytest
import zarr
from bluesky_tiled_plugins import TiledWriter
from engine import ending_engine
from event_model import compose_run
from scipy.ndimage import gaussian_filter
from servers import Server, free_ports, wait_for
from simulated_run import ANGLES, GEOMETRY, PHANTOM, TOMO, emit_run, frames
from tiled.client import from_uri
from tiled.server import SimpleTiledServer

from bluesky_jit.archive import answering, raw_catalog
from bluesky_jit.beamline.camera import TomoCamera
from bluesky_jit.beamline.plans import tomo_scan, tomo_step_scan
from bluesky_jit.beamline.shutter import SamplePositioner, Shutter
from bluesky_jit.beamline.stage import RotationStage
from bluesky_jit.intake.recorded import recorded_scan
from bluesky_jit.messages import ProjectionBlock
from bluesky_jit.settings import Settings
from bluesky_jit.settings_sections import GeometrySettings
from bluesky_jit.tomo.grid import Grid
from sim_devices.phantom import experiment

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

KEY = "secret"
PREFIX = "RECON:"
CONE = GeometrySettings(kind="cone", pixel_mm=2.0, source_axis_mm=441.4, source_detector_mm=1069.0)
ENDS_S = 120.0
RESOLVED_PX = 1.5
"""Standard deviation of the blur beyond which 60 columns and the detector's own blur make no difference."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A Tiled server with a catalog of raw runs."""

    server: SimpleTiledServer
    catalog: Any
    settings: Settings

    def writer(self) -> TiledWriter:
        return TiledWriter(self.catalog, batch_size=1000)


@pytest.fixture(scope="module")
def frames_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("frames")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, frames_directory: Path) -> Iterator[Archive]:
    directory = tmp_path_factory.mktemp("tiled")
    with SimpleTiledServer(directory, api_key=KEY, readable_storage=[frames_directory]) as server:
        uri = f"http://127.0.0.1:{server.port}"
        client = from_uri(uri, api_key=KEY)
        settings = Settings().changed({"tiled": {"uri": uri, "api_key": KEY}})
        yield Archive(server=server, catalog=raw_catalog(client), settings=settings)
        client.context.close()


def command(archive: Archive, *arguments: str, uri: str | None = None, key: str = KEY) -> subprocess.Popen[str]:
    """Start `bluesky-jit reconstruct …`, as a user of this Tiled server does."""
    ours = ("EPICS_", "BLUESKY_JIT_", "TILED_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {
        "BLUESKY_JIT_TILED__URI": archive.settings.tiled.uri if uri is None else uri,
        "BLUESKY_JIT_TILED__API_KEY": key,
        "COLUMNS": "100",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "bluesky_jit.cli", "reconstruct", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_command(archive: Archive, *arguments: str, **how: Any) -> tuple[int, str, str]:
    """Return its exit status, stdout and stderr."""
    with command(archive, *arguments, **how) as process:
        out, err = process.communicate(timeout=ENDS_S)
    return process.returncode, out, err


# ── runs of the simulated beamline ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """Runs that the simulated beamline has recorded, and when the first one's projections were taken."""

    turning: str
    stepping: str
    borrowing: str
    middle_s: float
    length_s: float
    phantom: Any
    t0_s: float


@pytest.fixture(scope="module")
def recorded(archive: Archive, frames_directory: Path, ca_repeater: None) -> Iterator[Recorded]:
    # ophyd chooses the library behind it.
    from epics import caget

    server = Server(
        *("sim_devices.ioc", "--prefix", PREFIX, "--rows", "40", "--columns", "56", "--photons", "8000"),
        *("--pixel-mm", str(CONE.pixel_mm), "--directory", str(frames_directory)),
    )
    server.wait_ready()
    devices = (
        TomoCamera(f"{PREFIX}DET:", name="camera"),
        RotationStage(f"{PREFIX}ROT", name="stage"),
        Shutter(f"{PREFIX}SHUTTER", name="shutter"),
        SamplePositioner(f"{PREFIX}SAMPLE", name="sample"),
    )
    for device in devices:
        device.wait_for_connection(timeout=20)
    devices[1].velocity.put(720.0, wait=True)
    uids: list[str] = []
    with ending_engine() as engine:
        engine.subscribe(archive.writer())
        engine.subscribe(lambda _, start: uids.append(start["uid"]), "start")
        engine(tomo_scan(*devices, turns=1, angles_per_turn=150, darks=5, flats=8, flats_after=8, geometry=CONE))
        engine(tomo_step_scan(*devices, angles_per_turn=12, darks=2, flats=3, geometry=CONE))
        engine(tomo_scan(*devices, turns=1, angles_per_turn=60, darks=0, flats=0, geometry=CONE, dark_flat_uid=uids[0]))
    described = ("Experiment", "Seed", "RadiusMm", "HalfHeightMm")
    name, seed, radius, half_height = (caget(f"{PREFIX}PHANTOM:{each}_RBV", timeout=10) for each in described)
    with recorded_scan(uids[0], archive.settings) as scan:
        times = scan.frames["projection"].times_s
    yield Recorded(
        turning=uids[0],
        stepping=uids[1],
        borrowing=uids[2],
        middle_s=float(times.mean()),
        length_s=float(np.ptp(times)),
        phantom=experiment(name, seed=int(seed), radius_mm=float(radius), half_height_mm=float(half_height)),
        t0_s=float(caget(f"{PREFIX}PHANTOM:T0", timeout=10)),
    )
    for device in devices:
        device.destroy()
    server.stop()


def truth_of(recorded: Recorded, grid: Grid) -> np.ndarray:
    """Return the sample on a grid, averaged over the scan: its bubbles move."""
    times = recorded.middle_s - recorded.t0_s + recorded.length_s * np.linspace(-0.5, 0.5, 9)
    return np.mean([recorded.phantom.attenuation(grid, float(time_s), oversample=2) for time_s in times], axis=0)


def assert_true(found: np.ndarray, truth: np.ndarray) -> None:
    """Require a slice of the sample in 1/mm: its mean, and its contrast where the detector resolves it."""
    ny, nx = found.shape
    y, x = np.ogrid[:ny, :nx]
    # Not up to the container's wall, which the edge would cut.
    inside = np.hypot(y - (ny - 1) / 2, x - (nx - 1) / 2) < 0.8 * nx / 2
    assert found[inside].mean() == pytest.approx(truth[inside].mean(), rel=0.01)
    found, truth = (gaussian_filter(image, RESOLVED_PX)[inside] for image in (found, truth))
    assert np.corrcoef(found, truth)[0, 1] > 0.95
    assert np.polyfit(truth, found, 1)[0] == pytest.approx(1.0, abs=0.05)


def test_a_run_becomes_a_volume_of_true_attenuation(archive: Archive, recorded: Recorded, tmp_path: Path) -> None:
    status, _, err = run_command(archive, recorded.turning[:8], str(tmp_path / "out.zarr"))
    assert status == 0, err
    volume = zarr.open_array(tmp_path / "out.zarr", mode="r")
    told = dict(volume.attrs)
    assert told["source"] == f"run {recorded.turning} in Tiled at {archive.settings.tiled.uri}"
    assert told["geometry"]["source_axis_mm"] == CONE.source_axis_mm
    grid = Grid(**told["grid"])
    nz, ny, nx = grid.shape
    middle = replace(grid, origin=tuple(np.asarray(grid.origin) + nz // 2 * np.asarray(grid.z_step)), shape=(1, ny, nx))
    assert_true(np.asarray(volume[nz // 2]), truth_of(recorded, middle)[0])


def test_progress_goes_to_the_end_and_the_log_does_not_cut_it(
    archive: Archive, recorded: Recorded, tmp_path: Path
) -> None:
    status, out, err = run_command(archive, recorded.turning, str(tmp_path / "out.h5"))
    assert status == 0, err
    assert "150/150" in err
    assert "backprojection kernel" in err.splitlines()[0]
    bars = [line for line in err.splitlines() if "━" in line]
    assert [line.split()[0] for line in bars] == ["filtering", "reconstructing"]
    with h5py.File(tmp_path / "out.h5") as file:
        n = file["volume"].shape[0]
    assert f"{n}/{n}" in bars[-1]
    assert "150 projections" in out
    assert "━" not in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5", "out.h5.png"]


def test_darks_and_flats_of_the_run_that_is_named_are_used(
    archive: Archive, recorded: Recorded, tmp_path: Path
) -> None:
    with recorded_scan(recorded.borrowing, archive.settings) as scan:
        flats = list(scan.blocks(kinds=("flat",)))
    assert sum(map(len, flats)) == 8
    assert {block.flats for block in flats} == {f"run {recorded.turning}"}
    with recorded_scan(recorded.turning, archive.settings) as scan:
        lender = list(scan.blocks(kinds=("flat",)))
    assert [(len(block), block.after) for block in lender] == [(8, 0), (8, 150)]
    np.testing.assert_array_equal(flats[0].counts, lender[1].counts)
    status, out, err = run_command(archive, recorded.borrowing, str(tmp_path / "out.tif"))
    assert (status, "60 projections" in out) == (0, True), err


def test_each_frame_comes_with_its_angle_time_and_id(archive: Archive, recorded: Recorded) -> None:
    with recorded_scan(recorded.stepping, archive.settings) as scan:
        blocks = list(scan.blocks(kinds=("projection",), size=5))
    assert [len(block) for block in blocks] == [5, 5, 2]
    assert np.concatenate([block.acquisition for block in blocks]).tolist() == list(range(12))
    angles = np.concatenate([block.angles_rad for block in blocks])
    np.testing.assert_allclose(np.diff(angles), 2 * np.pi / 12, atol=1e-3)
    ids = np.concatenate([block.unique_ids for block in blocks])
    assert (np.diff(ids) > 0).all()
    times = np.concatenate([block.frame_times_s for block in blocks])
    assert abs(times[0] - time.time()) < 3600
    assert (np.diff(times) > 0).all()
    assert blocks[0].counts.dtype == np.uint16
    assert blocks[0].angle_source == "same stream"


def test_a_scan_id_and_minus_one_name_runs_too(archive: Archive, recorded: Recorded) -> None:
    with recorded_scan("2", archive.settings) as scan:
        assert scan.uid == recorded.stepping
    with recorded_scan("-1", archive.settings) as scan:
        assert scan.uid == archive.catalog[-1].metadata["start"]["uid"]


def test_ctrl_c_leaves_no_half_volume(archive: Archive, recorded: Recorded, tmp_path: Path) -> None:
    part = tmp_path / "out.zarr.part"
    with command(archive, recorded.turning, str(tmp_path / "out.zarr"), "--set", "slices.voxel_mm=0.1") as process:
        wait_for(lambda: part.exists() or process.poll() is not None, what="the beginning of the volume")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=ENDS_S)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_files_that_the_server_cannot_read_are_told(
    archive: Archive, recorded: Recorded, frames_directory: Path
) -> None:
    with recorded_scan(recorded.stepping, archive.settings) as scan:
        hidden = [(path, path.with_suffix(".hidden")) for path in frames_directory.glob("*.h5")]
        for path, away in hidden:
            path.rename(away)
        try:
            with pytest.raises(OSError, match=r"could not give what was asked \(500\): look into its log"):
                list(scan.blocks())
        finally:
            for path, away in hidden:
                away.rename(path)


# ── runs whose frames are inside events ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def inline(archive: Archive) -> str:
    return emit_run(archive.writer(), frames(photons=8000), scan_id=77)


def test_frames_inside_events_are_read_with_the_angles_beside_them(
    archive: Archive, inline: str, tmp_path: Path
) -> None:
    with recorded_scan("77", archive.settings) as scan:
        assert scan.uid == inline
    np.testing.assert_allclose(scan.angles_rad, 2 * np.pi * np.arange(ANGLES) / ANGLES)
    status, _, err = run_command(archive, inline, str(tmp_path / "out.zarr"))
    assert status == 0, err
    volume = zarr.open_array(tmp_path / "out.zarr", mode="r")
    grid = Grid(**volume.attrs["grid"])
    truth = PHANTOM.attenuation(grid, 0.0, oversample=2)
    middle = grid.shape[0] // 2
    assert_true(np.asarray(volume)[middle], truth[middle])
    assert volume.attrs["geometry"]["pixel_mm"] == GEOMETRY.pixel_mm


def emit_columns(
    archive: Archive, columns: dict[str, dict[str, Any]], *, tomo: dict[str, Any] | None, n: int = 6
) -> str:
    """Record a run of n projections with these data keys, their values in `values`."""
    writer = archive.writer()
    run = compose_run(metadata={"scan_id": 1000, **({"tomo": tomo} if tomo is not None else {})})
    writer("start", run.start_doc)
    if columns:
        keys = {name: {"source": "test", **column["key"]} for name, column in columns.items()}
        stream = run.compose_descriptor(name="primary", data_keys=keys)
        writer("descriptor", stream.descriptor_doc)
        for number in range(n):
            data = {name: column["values"][number] for name, column in columns.items()}
            writer("event", stream.compose_event(data=data, timestamps=dict.fromkeys(data, 1.79e9 + number)))
    writer("stop", run.compose_stop())
    return run.start_doc["uid"]


def image(n: int = 6) -> dict[str, Any]:
    key = {"dtype": "array", "dtype_numpy": "<u2", "shape": [4, 5]}
    return {"key": key, "values": [np.full((4, 5), 100 + number, np.uint16) for number in range(n)]}


def number(values: Any, **key: Any) -> dict[str, Any]:
    return {"key": {"dtype": "number", "dtype_numpy": "<f8", "shape": [], **key}, "values": list(values)}


def projections(archive: Archive, uid: str) -> ProjectionBlock:
    with recorded_scan(uid, archive.settings) as scan:
        [block] = scan.blocks(kinds=("projection",))
    return block


def test_a_frame_that_was_recorded_twice_counts_once(archive: Archive) -> None:
    columns = {
        "det_image": image(),
        "det_unique_id": number([5, 6, 7, 7, 8, 9]),
        "det_frame_time": number([0.1, 0.2, 0.3, 0.3, 0.4, 0.5]),
        "theta": number([0, 60, 120, 120, 180, 240], units="deg"),
    }
    block = projections(archive, emit_columns(archive, columns, tomo=TOMO))
    assert block.unique_ids.tolist() == [5, 6, 7, 8, 9]
    assert block.acquisition.tolist() == [0, 1, 2, 3, 4]
    assert block.counts[:, 0, 0].tolist() == [100, 101, 102, 104, 105]
    np.testing.assert_allclose(np.rad2deg(block.angles_rad), [0, 60, 120, 180, 240])


def test_steps_are_even_where_a_run_says_how_many_make_a_turn(
    archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    tomo = {"geometry": "parallel", "pixel_mm": 1.0, "n_angles_per_rotation": 6}
    block = projections(archive, emit_columns(archive, {"det_image": image()}, tomo=tomo))
    np.testing.assert_allclose(block.angles_rad, np.arange(6) * np.pi / 3)
    assert block.angle_source == "plan arguments"
    assert "even steps are taken" in caplog.text


# ── what cannot be reconstructed ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("columns", "tomo", "said"),
    [
        ({"det_image": image()}, None, "is no tomography run"),
        ({}, TOMO, "has no projections: its streams are none"),
        ({"theta": number(range(6))}, TOMO, "has no projections: its streams are primary"),
        ({"det_image": image()}, {"geometry": "parallel"}, "records no angle and does not say how many"),
        ({"det_image": image()}, {"scan_mode": "golden"}, "'golden' has no even steps"),
        ({"det_image": image()}, TOMO, r"angle key 'theta' is not among .* correct intake\.angle_key"),
        ({"det_image": image(), "theta": number([0, np.nan] * 3)}, TOMO, "3 angles in 'theta' that are no numbers"),
        ({"det_image": image(), "theta": number(range(6))}, {**TOMO, "dark_flat_uid": "a" * 36}, "run aaaaaaaa, which"),
    ],
)
def test_a_run_that_cannot_be_reconstructed_says_why(
    archive: Archive, columns: dict[str, Any], tomo: dict[str, Any] | None, said: str
) -> None:
    uid = emit_columns(archive, columns, tomo=tomo)
    with pytest.raises(ValueError, match=said), recorded_scan(uid, archive.settings):
        pass


def test_the_command_says_in_one_line_what_is_wrong(
    archive: Archive, inline: str, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    (port,) = free_ports(1)
    (tmp_path / "there.zarr").mkdir()
    for what, source, output, how, said in (
        ("unknown uid", "deadbeef", "out.zarr", {}, "has no run 'deadbeef': give a scan id, -1"),
        ("unknown scan id", "4711", "out.zarr", {}, "has no run '4711'"),
        ("a file that is not there", "scan.h5", "out.zarr", {}, "scan.h5 does not exist"),
        ("no Tiled set", "deadbeef", "out.zarr", {"uri": ""}, "no Tiled server to look for a run"),
        ("Tiled is not up", inline, "out.zarr", {"uri": f"http://127.0.0.1:{port}"}, "no answer from Tiled at"),
        ("a wrong key", inline, "out.zarr", {"key": "wrong"}, "check tiled.api_key"),
        ("the volume is there", inline, "there.zarr", {}, "there.zarr exists already: give another name"),
        ("a folder that cannot be written", inline, "/proc/nobody/out.zarr", {}, "nothing can be written to /proc"),
    ):
        with subtests.test(what):
            status, out, err = run_command(archive, source, str(tmp_path / output), **how)
            assert (status, out) == (1, "")
            assert said in err
            assert len(err.strip().splitlines()) == 1
            assert KEY not in err
    assert [path.name for path in tmp_path.iterdir()] == ["there.zarr"]


def test_a_server_that_goes_away_is_told_in_one_sentence() -> None:
    with pytest.raises(OSError, match="no answer from Tiled at here"), answering("here"):
        raise httpx.ReadTimeout("timed out")
