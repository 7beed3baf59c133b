"""The plans on the simulated beamline: documents, files, and what they leave behind."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import h5py
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.plans import count
from bluesky.utils import RunEngineInterrupted
from event_model import DocumentNames, schema_validators
from ophyd import EpicsSignal
from ophyd.utils import LimitError
from servers import JIT_CA_PORT, Server, wait_for

from bluesky_jit import JITCallback, Session
from bluesky_jit.beamline import series
from bluesky_jit.beamline.angles import angles_deg
from bluesky_jit.beamline.camera import TomoCamera
from bluesky_jit.beamline.plans import tomo_scan, tomo_step_scan
from bluesky_jit.beamline.shutter import SamplePositioner, Shutter
from bluesky_jit.beamline.stage import RotationStage
from bluesky_jit.settings import load_settings
from bluesky_jit.settings_sections import GeometrySettings

pytestmark = pytest.mark.system

GEOMETRY = GeometrySettings(kind="cone", pixel_mm=0.5, source_axis_mm=441.4, source_detector_mm=1069.0)
VELOCITY_DEG_S = 720.0
"""How fast the stage moves between scans."""
QUICK: dict[str, Any] = {"turns": 1, "angles_per_turn": 30, "exposure_s": 0.02, "darks": 3, "flats": 4}


class Beamline:
    """The devices of one simulated beamline, with a RunEngine and the documents that it emitted."""

    def __init__(self, prefix: str) -> None:
        self.camera = TomoCamera(f"{prefix}DET:", name="camera")
        self.stage = RotationStage(f"{prefix}ROT", name="stage")
        self.shutter = Shutter(f"{prefix}SHUTTER", name="shutter")
        self.sample = SamplePositioner(f"{prefix}SAMPLE", name="sample")
        self.prefix = prefix
        self.devices = (self.camera, self.stage, self.shutter, self.sample)
        for device in self.devices:
            device.wait_for_connection(timeout=10)
        self.stage.velocity.put(VELOCITY_DEG_S, wait=True)
        self.engine = RunEngine({}, context_managers=[])
        self.documents: list[tuple[str, dict[str, Any]]] = []

    def run(self, plan: Any, *listeners: Callable[[str, Any], None]) -> None:
        self.documents = []
        self.engine(plan, [lambda name, doc: self.documents.append((name, doc)), *listeners])

    def scan(self, *listeners: Callable[[str, Any], None], **values: Any) -> None:
        self.run(tomo_scan(*self.devices, **{**QUICK, **values}), *listeners)

    def of(self, name: str) -> list[dict[str, Any]]:
        return [doc for kind, doc in self.documents if kind == name]

    @property
    def streams(self) -> dict[str, str]:
        """Return stream name by descriptor uid."""
        return {doc["uid"]: doc["name"] for doc in self.of("descriptor")}

    def files(self, stream: str) -> list[Path]:
        """Return the files of a stream's images, in order."""
        uids = {doc["stream_resource"] for doc in self.of("stream_datum") if self.streams[doc["descriptor"]] == stream}
        resources = [doc for doc in self.of("stream_resource") if doc["uid"] in uids and doc["data_key"] == "camera"]
        return [Path(unquote(urlparse(doc["uri"]).path)) for doc in resources]

    def read(self, stream: str, dataset: str = "/entry/data/data") -> np.ndarray:
        """Return all rows of a dataset of a stream."""
        rows = []
        for path in self.files(stream):
            with h5py.File(path, "r") as file:
                rows.append(np.asarray(file[dataset]))
        return np.concatenate(rows)

    def attribute(self, stream: str, name: str) -> np.ndarray:
        return self.read(stream, f"/entry/instrument/NDAttributes/{name}")

    def assert_safe(self) -> None:
        """Require what every plan owes to the next person: nothing exposes or moves, no beam, the sample in."""
        assert self.camera.cam.acquire.get(use_monitor=False) == 0
        assert self.camera.hdf5.capture.get(use_monitor=False) == 0
        assert self.stage.motor_done_move.get(use_monitor=False) == 1
        assert self.stage.velocity.get(use_monitor=False) == VELOCITY_DEG_S
        assert self.shutter.state.get(use_monitor=False) == "Closed"
        assert self.sample.state.get(use_monitor=False) == "In"

    def fault(self, name: str) -> EpicsSignal:
        signal = EpicsSignal(f"{self.prefix}FAULT:{name}", name=name)
        signal.wait_for_connection(timeout=5)
        return signal

    def close(self) -> None:
        self.engine.loop.call_soon_threadsafe(self.engine.loop.stop)
        self.engine._th.join()
        self.engine.loop.close()
        for device in self.devices:
            device.destroy()


@pytest.fixture(scope="module")
def beamline(sim: Any) -> Iterator[Beamline]:
    beamline = Beamline(sim.prefix)
    yield beamline
    beamline.close()


def when_primary(action: Callable[[], object]) -> Callable[[str, Any], None]:
    """Return a listener that acts once, in a thread of its own, when projections have begun to arrive."""
    primary: set[str] = set()
    acted: list[threading.Thread] = []

    def listen(name: str, doc: Any) -> None:
        if name == "descriptor" and doc["name"] == "primary":
            primary.add(doc["uid"])
        if name in ("stream_datum", "event") and doc["descriptor"] in primary and not acted:
            acted.append(threading.Thread(target=action))
            acted[0].start()

    return listen


# ── what a scan records ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def scanned(beamline: Beamline) -> Beamline:
    """A beamline that has done a plain scan of two turns."""
    beamline.scan(turns=2, geometry=GEOMETRY, energy_kev=17.5, md={"sample_name": "tablet"})
    return beamline


def test_documents_of_a_scan(scanned: Beamline, subtests: pytest.Subtests) -> None:
    with subtests.test("every document is valid"):
        for name, doc in scanned.documents:
            schema_validators[DocumentNames[name]].validate(doc)
    with subtests.test("darks, flats and projections are streams of their own"):
        (stop,) = scanned.of("stop")
        assert stop["exit_status"] == "success"
        assert stop["num_events"] == {"darks": 3, "flats": 4, "primary": 60}
    with subtests.test("the start document says how to reconstruct"):
        (start,) = scanned.of("start")
        assert start["plan_name"] == "tomo_scan"
        assert start["sample_name"] == "tablet"
        assert start["tomo"] == {
            "geometry": "cone",
            "angle_key": "camera_angle",
            "image_key": "camera",
            "rotation_axis": "stage",
            "axis_offset_mm": 0.0,
            "axis_tilt_rad": 0.0,
            "detector_u_mm": 0.0,
            "detector_v_mm": 0.0,
            "detector_roll_rad": 0.0,
            "detector_pitch_rad": 0.0,
            "detector_yaw_rad": 0.0,
            "extended_field": False,
            "calibration": None,
            "pixel_mm": 0.5,
            "source_axis_mm": 441.4,
            "source_detector_mm": 1069.0,
            "energy_kev": 17.5,
            "exposure_s": 0.02,
            "n_angles_per_rotation": 30,
            "scan_mode": "sequential",
            "dark_flat_uid": None,
            "pva": f"{scanned.prefix}DET:Pva1:Image",
        }
    with subtests.test("data keys tell shape, type and unit as they are in the file"):
        keys = scanned.of("descriptor")[-1]["data_keys"]
        assert keys["camera"]["shape"] == [32, 40]
        assert keys["camera_angle"]["units"] == "deg"
        for resource in scanned.of("stream_resource"):
            with h5py.File(urlparse(resource["uri"]).path, "r") as file:
                dataset = file[resource["parameters"]["dataset"]]
                assert dataset.dtype == np.dtype(keys[resource["data_key"]]["dtype_numpy"])
                assert list(dataset.shape[1:]) == keys[resource["data_key"]]["shape"]
                assert resource["parameters"]["swmr"] is True
    with subtests.test("frames are announced in pieces, each row once, and all that are in the file"):
        rows: dict[str, list[int]] = defaultdict(list)
        for datum in scanned.of("stream_datum"):
            rows[datum["stream_resource"]].extend(range(datum["indices"]["start"], datum["indices"]["stop"]))
        for resource in scanned.of("stream_resource"):
            with h5py.File(urlparse(resource["uri"]).path, "r") as file:
                assert rows[resource["uid"]] == list(range(len(file[resource["parameters"]["dataset"]])))
        assert len(scanned.of("stream_datum")) > 4 * 3 * 2


def test_angles_advance_evenly_and_anticlockwise(scanned: Beamline) -> None:
    steps = np.diff(scanned.attribute("primary", "Angle"))
    assert (steps > 0).all()
    assert np.median(steps) == pytest.approx(360 / 30, rel=0.02)
    assert (np.diff(scanned.attribute("primary", "NDArrayUniqueId")) == 1).all()


def test_the_stage_is_at_speed_from_the_first_projection_to_the_last(scanned: Beamline) -> None:
    seconds = scanned.attribute("primary", "NDArrayTimeStamp")
    speeds = np.diff(scanned.attribute("primary", "Angle")) / np.diff(seconds)
    np.testing.assert_allclose(speeds, 360 / 30 / 0.02, rtol=0.01)


def test_darks_are_dark_and_flats_are_without_the_sample(scanned: Beamline) -> None:
    dark, flat, projection = (scanned.read(stream).mean() for stream in ("darks", "flats", "primary"))
    assert dark < 0.2 * projection
    assert projection < 0.9 * flat


def test_a_scan_leaves_the_beamline_safe(scanned: Beamline) -> None:
    scanned.assert_safe()


# ── variations ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_scans_without_darks_and_flats(beamline: Beamline) -> None:
    beamline.scan(darks=0, flats=0, dark_flat_uid="a1b2")
    assert beamline.of("stop")[0]["num_events"] == {"primary": 30}
    assert beamline.of("start")[0]["tomo"]["dark_flat_uid"] == "a1b2"


def test_takes_flats_again_at_the_end(beamline: Beamline) -> None:
    beamline.scan(darks=0, flats=2, flats_after=3)
    assert beamline.of("stop")[0]["num_events"] == {"flats": 5, "primary": 30}
    assert [doc["name"] for doc in beamline.of("descriptor")] == ["flats", "primary"]
    assert beamline.read("flats").shape == (5, 32, 40)
    assert beamline.read("flats")[-1].mean() > 1.1 * beamline.read("primary").mean()
    beamline.assert_safe()


@pytest.mark.parametrize("order", ["interlaced", "golden"])
def test_steps_through_other_orders_of_angles(beamline: Beamline, order: Any) -> None:
    beamline.scan(order=order, turns=2, angles_per_turn=4, darks=1, flats=1)
    assert beamline.of("stop")[0]["num_events"] == {"darks": 1, "flats": 1, "primary": 8}
    angles = beamline.attribute("primary", "Angle")
    np.testing.assert_allclose(angles % 360, angles_deg(order, 2, 4), atol=0.01)
    np.testing.assert_allclose([event["data"]["stage"] for event in beamline.of("event")], angles, atol=0.01)
    for name, doc in beamline.documents:
        schema_validators[DocumentNames[name]].validate(doc)


def test_a_step_scan_goes_on_after_a_pause(beamline: Beamline) -> None:
    pause = when_primary(beamline.engine.request_pause)
    with pytest.raises(RunEngineInterrupted):
        beamline.run(tomo_step_scan(*beamline.devices, angles_per_turn=6, darks=1, flats=1), pause)
    assert beamline.engine.state == "paused"
    beamline.engine.resume()
    stop = beamline.of("stop")[0]
    assert stop["exit_status"] == "success"
    assert stop["num_events"]["primary"] == 6
    angles = beamline.attribute("primary", "Angle")
    first_key = next(key for key in beamline.of("stream_resource") if "primary" in key["uri"])["uid"]
    rows = [d["indices"]["start"] for d in beamline.of("stream_datum") if d["stream_resource"] == first_key]
    np.testing.assert_allclose(angles[rows] % 360, angles_deg("sequential", 1, 6), atol=0.01)
    beamline.assert_safe()


def test_counts_single_frames(beamline: Beamline) -> None:
    beamline.run(count([beamline.camera], 3))
    assert beamline.of("stop")[0]["num_events"] == {"primary": 3}
    assert beamline.read("primary").shape == (3, 32, 40)


def test_part_of_a_turn_says_how_far_it_goes_and_is_weighted_as_it_comes(beamline: Beamline) -> None:
    settings = load_settings(environment={}, learn={"enabled": False})
    with Session(settings, sinks=[]) as session:
        # Slowly: where a busy machine's simulated trigger is late, an angle is a fraction of a step further on.
        beamline.scan(JITCallback(session), turns=0.7, angles_per_turn=60, exposure_s=0.1, geometry=GEOMETRY)
        [start] = beamline.of("start")
        assert session.wait_for(lambda status: (status.run_uid, status.state) == (start["uid"], "idle"), 60.0)
        run, update = session.run, session.latest("XY", "raw")
        assert run is not None
        assert run.reconstruction is not None
        assert run.reconstruction.complete
        assert run.reconstruction.warnings() == ()
        assert update is not None
        assert update.angles.count == 42
        assert np.rad2deg(update.angles.arc_rad) == pytest.approx(252, abs=3)


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"turns": 0}, "turns is 0"),
        ({"angles_per_turn": 1}, "angles_per_turn is 1"),
        ({"exposure_s": -0.1}, "exposure_s is -0.1"),
        ({"period_s": 0.01}, "period_s is 0.01, shorter than the exposure"),
        ({"flats": -1}, "flats is -1"),
        ({"order": "random"}, "order is 'random': give one of sequential, interlaced, golden"),
    ],
)
def test_refuses_what_makes_no_sense_before_anything_moves(
    beamline: Beamline, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        beamline.scan(**values)
    assert beamline.documents == []
    beamline.assert_safe()


def test_refuses_turns_beyond_the_limits_of_the_stage(beamline: Beamline) -> None:
    here = beamline.stage.angle_deg
    beamline.stage.low_limit_travel.put(here - 600, wait=True)
    beamline.stage.high_limit_travel.put(here + 600, wait=True)
    try:
        wait_for(lambda: beamline.stage.limits[1] > beamline.stage.limits[0])
        with pytest.raises(LimitError, match="beyond its limit"):
            beamline.scan(turns=2)
        assert beamline.documents == []
        beamline.scan(turns=1)
        assert beamline.of("stop")[0]["num_events"]["primary"] == 30
    finally:
        beamline.stage.low_limit_travel.put(0, wait=True)
        beamline.stage.high_limit_travel.put(0, wait=True)
        wait_for(lambda: beamline.stage.limits == (0, 0))


def test_a_pause_while_turning_ends_the_run_safely(beamline: Beamline) -> None:
    with pytest.raises(RunEngineInterrupted):
        beamline.scan(when_primary(beamline.engine.request_pause), turns=10)
    assert beamline.engine.state == "idle"
    beamline.assert_safe()
    (stop,) = beamline.of("stop")
    assert stop["exit_status"] == "fail"
    assert 0 < stop["num_events"]["primary"] < 300
    assert stop["num_events"]["primary"] == len(beamline.read("primary"))


def test_an_error_while_turning_ends_the_run_safely(beamline: Beamline) -> None:
    def fail(name: str, doc: Any) -> None:
        if name == "stream_datum" and doc["indices"]["start"] > 10:
            raise RuntimeError("a callback broke")

    with pytest.raises(RuntimeError, match="a callback broke"):
        beamline.scan(fail, turns=10)
    beamline.assert_safe()
    beamline.scan()
    assert beamline.of("stop")[0]["exit_status"] == "success"


def test_a_stage_that_is_stopped_from_elsewhere_ends_the_run(beamline: Beamline) -> None:
    with pytest.raises(RuntimeError, match=r"stage came to rest at .* before all projections"):
        beamline.scan(when_primary(lambda: beamline.stage.motor_stop.put(1)), turns=10)
    beamline.assert_safe()


def test_lost_frames_do_not_end_a_run(beamline: Beamline, caplog: pytest.LogCaptureFixture) -> None:
    beamline.scan(when_primary(lambda: beamline.fault("Drop").put(2, wait=True)), turns=2)
    assert beamline.of("stop")[0]["exit_status"] == "success"
    assert beamline.of("stop")[0]["num_events"]["primary"] == 58
    assert "only 58 of 60 frames for primary" in caplog.text
    beamline.assert_safe()


def test_a_camera_that_stalls_ends_the_run(beamline: Beamline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "STALL_S", 0.5)
    stall = beamline.fault("Stall")
    with pytest.raises(RuntimeError, match=r"camera brought no frame for .* of 300 primary: look at its IOC"):
        beamline.scan(when_primary(lambda: stall.put(60, wait=True)), turns=10)
    beamline.assert_safe()


def test_a_folder_that_cannot_be_written_is_named(beamline: Beamline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beamline.camera, "file_directory", "/proc/nobody/writes/here")
    with pytest.raises(FileNotFoundError, match=r"cannot write to /proc/nobody/writes/here: set beamline\."):
        beamline.scan()
    beamline.assert_safe()


@pytest.fixture
def doomed(ca_repeater: None, tmp_path: Path) -> Iterator[Server]:
    """A second beamline, to be ended by the test; on its own port, as of two IOCs on one only one hears a search."""
    server = Server(
        *("sim_devices.ioc", "--prefix", "GONE:", "--rows", "16", "--columns", "16", "--directory", str(tmp_path)),
        environment={"EPICS_CAS_SERVER_PORT": str(JIT_CA_PORT), "EPICS_CA_SERVER_PORT": str(JIT_CA_PORT)},
    )
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


def test_an_ioc_that_ends_in_mid_scan_gives_one_clear_message(doomed: Server) -> None:
    beamline = Beamline("GONE:")
    with pytest.raises(ConnectionError, match="no answer from camera, stage, shutter, sample: start"):
        beamline.scan(when_primary(doomed.stop), turns=20)
    assert beamline.of("stop")[0]["exit_status"] == "fail"
    beamline.close()
