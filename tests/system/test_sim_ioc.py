"""The simulated camera, as a beamline's own software sees it: stock ophyd, a pvAccess client, files, faults."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import h5py
import numpy as np
import pytest
from bluesky import RunEngine
from engine import ending_engine
from ophyd import Component, EpicsMotor, EpicsSignal, EpicsSignalRO
from ophyd.areadetector import AreaDetector
from ophyd.areadetector.base import EpicsSignalWithRBV
from ophyd.areadetector.filestore_mixins import FileStoreHDF5IterativeWrite
from ophyd.areadetector.plugins import HDF5Plugin, ImagePlugin
from ophyd.areadetector.trigger_mixins import SingleTrigger
from ophyd.utils.epics_pvs import AlarmSeverity
from p4p.client.thread import Context
from servers import Server, Sim, wait_for

pytestmark = pytest.mark.system

ATTRIBUTES = "/entry/instrument/NDAttributes"
EPICS_EPOCH_S = 631152000


class StockFile(HDF5Plugin, FileStoreHDF5IterativeWrite):
    """As beamline profiles write it."""

    swmr_mode = Component(EpicsSignalWithRBV, "SWMRMode", kind="omitted")

    def get_frames_per_point(self) -> int:
        return self.parent.cam.num_images.get()


class StockDetector(SingleTrigger, AreaDetector):
    """As beamline profiles write it."""

    image = Component(ImagePlugin, "image1:")
    file = Component(StockFile, "HDF1:", write_path_template="/")


class Faults:
    def __init__(self, prefix: str) -> None:
        names = ("Drop", "Duplicate", "Reorder", "Corrupt", "Stall", "Where", "Disconnect")
        self.signals = {name: EpicsSignal(f"{prefix}FAULT:{name}", name=name, put_complete=True) for name in names}
        for signal in self.signals.values():
            signal.wait_for_connection(timeout=10)

    def set(self, name: str, value: Any) -> None:
        self.signals[name].set(value).wait(10)

    def get(self, name: str) -> Any:
        return self.signals[name].get(use_monitor=False)


@pytest.fixture(scope="module")
def run_engine() -> Iterator[RunEngine]:
    with ending_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def detector(sim: Sim) -> StockDetector:
    stock = StockDetector(f"{sim.prefix}DET:", name="det", read_attrs=["file"])
    stock.file.write_path_template = str(sim.directory)
    stock.wait_for_connection(timeout=10)
    return stock


@pytest.fixture(scope="module")
def stage(sim: Sim) -> EpicsMotor:
    motor = EpicsMotor(f"{sim.prefix}ROT", name="stage")
    motor.wait_for_connection(timeout=10)
    return motor


@pytest.fixture(scope="module")
def shutter(sim: Sim) -> EpicsSignal:
    return _switch(f"{sim.prefix}SHUTTER")


@pytest.fixture(scope="module")
def sample(sim: Sim) -> EpicsSignal:
    return _switch(f"{sim.prefix}SAMPLE")


@pytest.fixture(scope="module")
def faults(sim: Sim, detector: StockDetector) -> Faults:
    return Faults(sim.prefix)


@pytest.fixture(autouse=True)
def usual_settings(detector: StockDetector, shutter: EpicsSignal, sample: EpicsSignal) -> None:
    detector.unstage()
    for signal, value in {
        detector.cam.acquire: 0,
        detector.cam.num_images: 1,
        detector.cam.acquire_time: 0.01,
        detector.cam.acquire_period: 0.02,
        shutter: "Open",
        sample: "In",
    }.items():
        signal.set(value).wait(10)


@pytest.fixture
def pva() -> Iterator[Context]:
    with Context("pva") as context:
        yield context


def _switch(name: str) -> EpicsSignal:
    signal = EpicsSignal(name + "_RBV", write_pv=name, name=name, string=True, put_complete=True)
    signal.wait_for_connection(timeout=10)
    return signal


def newest_file(sim: Sim) -> Path:
    return max(sim.directory.glob("*.h5"), key=lambda path: path.stat().st_mtime_ns)


def read_newest(sim: Sim) -> dict[str, np.ndarray]:
    with h5py.File(newest_file(sim)) as file:
        return {"counts": file["/entry/data/data"][:]} | {name: data[:] for name, data in file[ATTRIBUTES].items()}


def take(detector: StockDetector, sim: Sim, frames: int) -> dict[str, np.ndarray]:
    """Take frames in one trigger of a staged detector; return what the file holds."""
    detector.cam.num_images.set(frames).wait(10)
    detector.stage()
    detector.trigger().wait(20)
    detector.unstage()
    return read_newest(sim)


class Frames:
    """Collect what a pvAccess monitor receives."""

    def __init__(self, context: Context, name: str) -> None:
        self._frames: queue.Queue[Any] = queue.Queue()
        self.received: list[Any] = []
        # A queue in the client's subscription, so that a test machine's hiccup loses no frame.
        request = "record[queueSize=100]field()"
        self._subscription = context.monitor(name, self._frames.put, request=request)
        # The first is whatever frame was last.
        self._frames.get(timeout=10)

    def collect(self, count: int) -> list[Any]:
        self.received = [self._frames.get(timeout=10) for _ in range(count)]
        self._subscription.close()
        return self.received


# ── what stock ophyd does ────────────────────────────────────────────────────────────────────────────────────────────


def test_stock_ophyd_counts_into_a_file(sim: Sim, detector: StockDetector, run_engine: RunEngine):
    documents: list[tuple[str, dict[str, Any]]] = []
    detector.cam.num_images.set(3).wait(10)
    run_engine(bp.count([detector], num=4), lambda name, document: documents.append((name, document)))
    resource = next(document for name, document in documents if name == "resource")
    points = [document["datum_kwargs"]["point_number"] for name, document in documents if name == "datum"]
    events = [document for name, document in documents if name == "event"]
    assert (Path(resource["root"]) / resource["resource_path"]) == newest_file(sim)
    assert resource["resource_kwargs"]["frame_per_point"] == 3
    assert points == [0, 1, 2, 3]
    assert all("det_image" in event["data"] for event in events)
    stored = read_newest(sim)
    assert stored["counts"].shape == (12, 32, 40)
    ids = stored["NDArrayUniqueId"]
    np.testing.assert_array_equal(ids, np.arange(ids[0], ids[0] + 12))


def test_the_image_plugin_shows_the_frame_that_was_written_last(sim: Sim, detector: StockDetector):
    stored = take(detector, sim, 2)
    # Channel Access has no unsigned 16-bit integers.
    shown = detector.image.array_data.get(use_monitor=False).view(np.uint16).reshape(32, 40)
    np.testing.assert_array_equal(shown, stored["counts"][-1])
    assert detector.image.unique_id.get() == stored["NDArrayUniqueId"][-1]


def test_a_put_to_acquire_completes_with_the_acquisition(detector: StockDetector):
    detector.cam.image_mode.set(1).wait(10)
    detector.cam.num_images.set(20).wait(10)
    counter = detector.cam.array_counter.get()
    acquire = EpicsSignal(detector.prefix + "cam1:Acquire", name="acquire", put_complete=True)
    acquire.wait_for_connection(timeout=10)
    started = time.monotonic()
    acquire.set(1).wait(10)
    assert time.monotonic() - started >= 19 * 0.02
    assert detector.cam.array_counter.get(use_monitor=False) == counter + 20
    assert detector.cam.acquire.get(use_monitor=False) == 0


@pytest.mark.parametrize(
    ("name", "refused", "usual"),
    [("TriggerMode", 1, 0), ("FrameType", 1, 0), ("NumExposures", 3, 1), ("Gain", 2.0, 1.0)],
)
def test_what_the_camera_cannot_do_is_refused_and_the_log_says_why(
    sim: Sim, detector: StockDetector, name: str, refused: float, usual: float
):
    prefix = f"{sim.prefix}DET:cam1:{name}"
    signal = EpicsSignal(f"{prefix}_RBV", write_pv=prefix, name=name, put_complete=True)
    signal.wait_for_connection(timeout=10)
    signal.put(refused)
    wait_for(lambda: any(f"{name} is" in line and "only does" in line for line in sim.server.output))
    assert signal.get(use_monitor=False) == usual
    signal.set(usual).wait(10)
    assert len(take(detector, sim, 1)["counts"]) == 1


def test_a_continuous_acquisition_goes_on_until_it_is_stopped(detector: StockDetector):
    detector.cam.image_mode.set(2).wait(10)
    counter = detector.cam.array_counter.get()
    detector.cam.acquire.set(1).wait(10)
    wait_for(lambda: detector.cam.array_counter.get() > counter + 5)
    detector.cam.acquire.set(0).wait(10)
    assert detector.cam.detector_state.get(use_monitor=False) == 0


def test_unique_ids_count_up_from_one_acquisition_to_the_next(sim: Sim, detector: StockDetector):
    first = take(detector, sim, 2)["NDArrayUniqueId"]
    second = take(detector, sim, 2)["NDArrayUniqueId"]
    assert second[0] == first[-1] + 1


def test_frames_come_at_the_period_that_was_set(sim: Sim, detector: StockDetector):
    times_s = take(detector, sim, 20)["NDArrayTimeStamp"]
    # A machine that is busy may delay a frame; it never hurries one.
    assert np.median(np.diff(times_s)) == pytest.approx(0.02, abs=1e-3)


def test_the_set_up_can_be_read_so_that_the_truth_can_be_computed(sim: Sim):
    expected = {
        "PHANTOM:Experiment_RBV": "A",
        "PHANTOM:Seed_RBV": 1,
        "GEOMETRY:Kind_RBV": "cone",
        "GEOMETRY:PixelMm_RBV": 768 * 0.2 / 40,
        "GEOMETRY:SourceAxisMm_RBV": 441.4,
        "GEOMETRY:SourceDetectorMm_RBV": 1069.0,
        "GEOMETRY:Rows_RBV": 32,
        "GEOMETRY:Columns_RBV": 40,
    }
    signals = {name: EpicsSignalRO(sim.prefix + name, name=name) for name in expected}
    for signal in signals.values():
        signal.wait_for_connection(timeout=10)
    assert {name: signal.get() for name, signal in signals.items()} == expected


# ── beam ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_shutter_and_the_sample_make_darks_flats_and_projections(
    sim: Sim, detector: StockDetector, shutter: EpicsSignal, sample: EpicsSignal
):
    projections = take(detector, sim, 3)
    sample.set("Out").wait(10)
    flats = take(detector, sim, 3)
    shutter.set("Closed").wait(10)
    darks = take(detector, sim, 3)
    assert [set(each["FrameType"]) for each in (darks, flats, projections)] == [{0}, {1}, {2}]
    dark, flat, projection = (np.median(each["counts"]) for each in (darks, flats, projections))
    assert dark < projection < flat


# ── angles and time ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_frame_carries_the_angle_of_its_own_exposure(
    sim: Sim, detector: StockDetector, stage: EpicsMotor, run_engine: RunEngine
):
    run_engine(bps.mv(stage.velocity, 100))
    start = stage.position
    stage.move(start + 3600, wait=False)
    wait_for(lambda: stage.position > start + 30)
    stored = take(detector, sim, 20)
    stage.stop()
    wait_for(lambda: not stage.moving)
    times_s = stored["NDArrayTimeStamp"]
    np.testing.assert_allclose(np.diff(stored["Angle"]) / np.diff(times_s), 100.0, rtol=1e-3)


def test_angle_and_stage_agree_at_the_same_time(sim: Sim, detector: StockDetector, stage: EpicsMotor):
    readbacks: list[tuple[float, float]] = []
    stage.velocity.set(100).wait(10)
    stage.user_readback.subscribe(lambda *, value, timestamp, **_: readbacks.append((timestamp, value)), run=False)
    start = stage.position
    stage.move(start + 3600, wait=False)
    wait_for(lambda: stage.position > start + 30)
    stored = take(detector, sim, 20)
    stage.stop()
    wait_for(lambda: not stage.moving)
    stage.user_readback.unsubscribe_all()
    times_s = stored["NDArrayTimeStamp"] + EPICS_EPOCH_S
    steady = [(time_s, angle) for time_s, angle in readbacks if times_s[0] - 0.2 < time_s < times_s[-1] + 0.2]
    interpolated = np.interp(times_s, *np.transpose(steady))
    np.testing.assert_allclose(stored["Angle"], interpolated, atol=0.01)


# ── pvAccess and growing files ───────────────────────────────────────────────────────────────────────────────────────


def test_a_pva_monitor_and_the_file_tell_the_same(sim: Sim, detector: StockDetector, pva: Context):
    frames = Frames(pva, f"{sim.prefix}DET:Pva1:Image")
    stored = take(detector, sim, 10)
    received = frames.collect(10)
    assert [frame.raw.uniqueId for frame in received] == list(stored["NDArrayUniqueId"])
    assert [frame.attrib["Angle"] for frame in received] == list(stored["Angle"])
    np.testing.assert_array_equal(received, stored["counts"])
    stamps = [frame.raw.dataTimeStamp for frame in received]
    times_s = [stamp.secondsPastEpoch + 1e-9 * stamp.nanoseconds for stamp in stamps]
    np.testing.assert_allclose(times_s, stored["NDArrayTimeStamp"] + EPICS_EPOCH_S, atol=1e-6)
    assert received[-1].timestamp == pytest.approx(time.time(), abs=60)


def test_the_file_is_read_while_it_grows(sim: Sim, detector: StockDetector):
    detector.cam.num_images.set(200).wait(10)
    detector.stage()
    status = detector.trigger()
    wait_for(lambda: detector.file.num_captured.get(use_monitor=False) >= 5)
    with h5py.File(newest_file(sim), "r", swmr=True) as file:
        data = file["/entry/data/data"]
        seen = data.shape[0]

        def grown() -> bool:
            data.refresh()
            return data.shape[0] > seen + 5

        wait_for(grown)
        assert not status.done
    detector.cam.acquire.set(0).wait(10)
    detector.unstage()


def test_swmr_can_be_switched_off(sim: Sim, detector: StockDetector):
    detector.file.swmr_mode.set(0).wait(10)
    try:
        detector.stage()
        with pytest.raises(OSError), h5py.File(newest_file(sim), "r", swmr=True):
            pass
    finally:
        detector.unstage()
        detector.file.swmr_mode.set(1).wait(10)


def test_a_folder_that_is_missing_is_made_only_when_allowed(sim: Sim, detector: StockDetector):
    folder = sim.directory / "a" / "b"
    detector.file.file_path.put(str(folder), wait=True)
    assert detector.file.file_path_exists.get(use_monitor=False) == 0
    create_directory = EpicsSignal(detector.prefix + "HDF1:CreateDirectory", name="create")
    create_directory.wait_for_connection(timeout=10)
    create_directory.put(-3, wait=True)
    detector.file.file_path.put(str(folder), wait=True)
    assert detector.file.file_path_exists.get(use_monitor=False) == 1
    assert folder.is_dir()


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def steps_of(stored: dict[str, np.ndarray]) -> list[int]:
    return list(np.diff(stored["NDArrayUniqueId"]))


def test_dropped_frames_leave_a_gap_in_the_ids(sim: Sim, detector: StockDetector, faults: Faults):
    faults.set("Drop", 3)
    before = take(detector, sim, 4)["NDArrayUniqueId"]
    assert len(before) == 1
    assert faults.get("Drop") == 0


def test_a_duplicated_frame_comes_twice(sim: Sim, detector: StockDetector, faults: Faults):
    faults.set("Duplicate", 1)
    stored = take(detector, sim, 4)
    assert steps_of(stored) == [0, 1, 1, 1]
    np.testing.assert_array_equal(stored["counts"][0], stored["counts"][1])


def test_reordered_frames_change_places(sim: Sim, detector: StockDetector, faults: Faults):
    faults.set("Reorder", 1)
    assert steps_of(take(detector, sim, 4)) == [-1, 2, 1]


def test_a_frame_held_back_at_the_end_still_arrives(sim: Sim, detector: StockDetector, faults: Faults):
    faults.set("Reorder", 1)
    assert len(take(detector, sim, 1)["counts"]) == 1


def test_a_corrupt_frame_has_rows_of_noise(sim: Sim, detector: StockDetector, faults: Faults):
    faults.set("Corrupt", 1)
    stored = take(detector, sim, 3)
    spread = stored["counts"].astype(float).std(axis=(1, 2))
    assert spread[0] > 2 * spread[1:].max()
    assert steps_of(stored) == [1, 1]


def test_faults_of_pva_alone_leave_the_file_whole(sim: Sim, detector: StockDetector, faults: Faults, pva: Context):
    faults.set("Where", "PVA")
    frames = Frames(pva, f"{sim.prefix}DET:Pva1:Image")
    faults.set("Drop", 2)
    stored = take(detector, sim, 5)
    received = frames.collect(3)
    faults.set("Where", "Everywhere")
    assert steps_of(stored) == [1, 1, 1, 1]
    assert [frame.raw.uniqueId for frame in received] == list(stored["NDArrayUniqueId"][2:])


def test_a_stall_makes_a_hole_in_time(sim: Sim, detector: StockDetector, faults: Faults):
    faults.set("Stall", 0.5)
    detector.cam.num_images.set(3).wait(10)
    started = time.monotonic()
    take(detector, sim, 3)
    assert time.monotonic() - started > 0.5
    wait_for(lambda: faults.get("Stall") == 0)


def test_a_request_that_makes_no_sense_is_refused_and_the_log_says_why(sim: Sim, faults: Faults):
    drop = faults.signals["Drop"]

    def severity() -> int:
        drop.get(use_monitor=False)
        return drop.alarm_severity

    drop.put(-1)
    wait_for(lambda: severity() == AlarmSeverity.MAJOR)
    assert faults.get("Drop") == 0
    wait_for(lambda: any("Drop is -1: give a number of frames" in line for line in sim.server.output))
    faults.set("Drop", 0)
    assert severity() == AlarmSeverity.NO_ALARM


def test_clients_come_back_after_a_disconnection(sim: Sim, detector: StockDetector, faults: Faults, pva: Context):
    name = f"{sim.prefix}DET:Pva1:Image"
    pva.get(name, timeout=10)
    faults.signals["Disconnect"].put(0.5)
    wait_for(lambda: not detector.connected, what="the camera's disconnection")
    wait_for(lambda: detector.connected, what="the camera's return")
    wait_for(lambda: faults.signals["Disconnect"].connected)
    assert len(take(detector, sim, 2)["counts"]) == 2
    assert pva.get(name, timeout=10).raw.uniqueId > 0


# ── the process ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ending_the_ioc_in_mid_acquisition_leaves_a_whole_file(
    sim: Sim, detector: StockDetector, stage: EpicsMotor, shutter: EpicsSignal
):
    detector.cam.num_images.set(1000).wait(10)
    detector.stage()
    detector.trigger()
    wait_for(lambda: detector.file.num_captured.get(use_monitor=False) >= 5)
    assert sim.server.stop() == 0
    stored = read_newest(sim)
    assert len(stored["counts"]) == len(stored["Angle"]) >= 5
    wait_for(lambda: not detector.connected)

    again = Server("sim_devices.ioc", "--prefix", sim.prefix, "--rows", "32", "--columns", "40")
    try:
        again.wait_ready()
        wait_for(lambda: detector.connected and stage.connected and shutter.connected, what="the clients' return")
        detector.cam.num_images.set(2).wait(10)
        detector.unstage()
        assert len(take(detector, sim, 2)["counts"]) == 2
    finally:
        again.stop()
    assert not [line for line in (*sim.server.output, *again.output) if "Traceback" in line]
