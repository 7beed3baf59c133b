"""A read whose answer was lost with the IOC's circuit: its error is told, and the next run works."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bluesky.plans import count
from engine import ending_engine
from ophyd import EpicsSignal
from ophyd.signal import ReadTimeoutError
from servers import Sim, wait_for

from bluesky_jit.beamline.camera import TomoCamera
from bluesky_jit.beamline.plans import tomo_scan
from bluesky_jit.beamline.reads import forget_unanswered_reads
from bluesky_jit.beamline.shutter import SamplePositioner, Shutter
from bluesky_jit.beamline.stage import RotationStage

pytestmark = pytest.mark.system

ECA_DISCONN = 192
"""Virtual circuit disconnect: warning number 24 of caerr.h."""
QUICK: dict[str, Any] = {"turns": 1, "angles_per_turn": 12, "exposure_s": 0.02, "darks": 2, "flats": 2}

Devices = tuple[TomoCamera, RotationStage, Shutter, SamplePositioner]
Lose = Callable[[EpicsSignal], None]


@pytest.fixture(scope="module")
def devices(sim: Sim) -> Devices:
    made = (
        TomoCamera(f"{sim.prefix}DET:", name="camera"),
        RotationStage(f"{sim.prefix}ROT", name="stage"),
        Shutter(f"{sim.prefix}SHUTTER", name="shutter"),
        SamplePositioner(f"{sim.prefix}SAMPLE", name="sample"),
    )
    for device in made:
        device.wait_for_connection(timeout=30)
    made[1].velocity.put(720.0, wait=True)
    return made


@pytest.fixture
def lose(devices: Devices) -> Iterator[Lose]:
    """Read a signal at the moment when its circuit has ended and its PV is still taken for connected."""

    # ophyd finds libca for it, so that it must come first.
    from epics import ca

    def is_refused(signal: EpicsSignal) -> bool:
        try:
            signal.get(use_monitor=False)
        except ca.CASeverityException as error:
            return "Virtual circuit disconnect" in str(error)
        return False

    def lose(signal: EpicsSignal) -> None:
        signal.wait_for_connection(timeout=30)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ca.libca, "ca_array_get_callback", lambda *_: ECA_DISCONN)
            # A read that pyepics itself began on connecting is joined, and libca is not asked: then once more.
            wait_for(lambda: is_refused(signal), timeout_s=30, what="a read that libca refuses")

    yield lose
    # Whatever a test has lost, the next begins with healthy devices.
    forget_unanswered_reads(*devices, patience_s=0.0)


def run(plan: Any) -> dict[str, list[Any]]:
    """Return the documents by name."""
    documents: dict[str, list[Any]] = {}
    with ending_engine() as engine:
        engine(plan, lambda name, doc: documents.setdefault(name, []).append(doc))
    return documents


@pytest.mark.filterwarnings("ignore:ca.get:UserWarning")
def test_pyepics_waits_for_ever_for_a_read_that_was_lost(devices: Devices, lose: Lose) -> None:
    camera = devices[0]
    lose(camera.hdf5.num_captured)
    with pytest.raises(ReadTimeoutError, match="NumCaptured_RBV"):
        camera.hdf5.num_captured.get(use_monitor=False)
    forget_unanswered_reads(camera)
    assert camera.hdf5.num_captured.get(use_monitor=False) >= 0


def test_a_scan_works_after_reads_were_lost(devices: Devices, lose: Lose) -> None:
    camera, stage, shutter, sample = devices
    for name in ("hdf5.num_captured", "hdf5.capture", "hdf5.file_path", "cam.acquire", "cam.acquire_time"):
        lose(getattr(camera, name))
    for name in ("velocity", "motor_done_move", "low_limit_switch", "user_readback"):
        lose(getattr(stage, name))
    lose(shutter.state)
    lose(sample.state)
    assert run(tomo_scan(*devices, **QUICK))["stop"][0]["exit_status"] == "success"
    assert (shutter.state.get(use_monitor=False), sample.state.get(use_monitor=False)) == ("Closed", "In")


def test_another_plan_works_after_a_read_was_lost(devices: Devices, lose: Lose) -> None:
    camera, stage, *_ = devices
    lose(camera.cam.acquire_time)
    lose(stage.velocity)
    assert len(run(count([camera, stage], 2))["event"]) == 2


@pytest.mark.parametrize("index", [0, 1], ids=["camera", "stage"])
def test_a_device_that_cannot_be_restored_can_be_staged_again(devices: Devices, lose: Lose, index: int) -> None:
    from epics import ca

    device = devices[index]
    device.stage()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ca.libca, "ca_array_get_callback", lambda *_: ECA_DISCONN)
        patch.setattr(ca.libca, "ca_array_put_callback", lambda *_: ECA_DISCONN)
        device.unstage()
    assert device.stage()
    device.unstage()


def test_a_read_that_is_on_its_way_is_waited_for(devices: Devices) -> None:
    from epics import ca, dbr

    signal = devices[0].cam.acquire_time
    signal.wait_for_connection(timeout=30)
    channel = ca.get_cache(signal.pvname).chid
    assert ca.get_with_metadata(channel, ftype=dbr.TIME_DOUBLE, wait=False) is None
    forget_unanswered_reads(devices[0])
    answer = ca.get_complete_with_metadata(channel, ftype=dbr.TIME_DOUBLE)
    assert answer["value"] == signal.get()


SCAN_BY_CAPROTO = """
import sys
sys.modules["epics"] = None  # as where pyepics is not installed
from bluesky import RunEngine
from ophyd import get_cl
from bluesky_jit.beamline.camera import TomoCamera
from bluesky_jit.beamline.plans import tomo_scan
from bluesky_jit.beamline.shutter import SamplePositioner, Shutter
from bluesky_jit.beamline.stage import RotationStage

prefix = sys.argv[1]
devices = (
    TomoCamera(f"{prefix}DET:", name="camera"),
    RotationStage(f"{prefix}ROT", name="stage"),
    Shutter(f"{prefix}SHUTTER", name="shutter"),
    SamplePositioner(f"{prefix}SAMPLE", name="sample"),
)
for device in devices:
    device.wait_for_connection(timeout=30)
ends = []
engine = RunEngine({}, context_managers=[])
engine.subscribe(lambda _, stop: ends.append(stop["exit_status"]), "stop")
engine(tomo_scan(*devices, turns=1, angles_per_turn=12, exposure_s=0.02, darks=2, flats=2))
print(get_cl().name, *ends)
"""


def test_a_scan_needs_no_pyepics(sim: Sim) -> None:
    scan = subprocess.run(
        [sys.executable, "-c", SCAN_BY_CAPROTO, sim.prefix],
        env=os.environ | {"OPHYD_CONTROL_LAYER": "caproto"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert scan.stdout.split() == ["caproto", "success"], scan.stderr
