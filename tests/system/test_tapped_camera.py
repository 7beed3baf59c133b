"""Frames by pvAccess from the simulated beamline: what it loses comes from the file, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from engine import ending_engine
from ophyd import EpicsSignal
from servers import Sim

from bluesky_jit import JITCallback, Session
from bluesky_jit.beamline.camera import TomoCamera
from bluesky_jit.beamline.plans import tomo_scan
from bluesky_jit.beamline.shutter import SamplePositioner, Shutter
from bluesky_jit.beamline.stage import RotationStage
from bluesky_jit.messages import SessionStatus
from bluesky_jit.settings import load_settings
from bluesky_jit.settings_sections import GeometrySettings

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SOON_S = 90.0
SCAN: dict[str, Any] = {"turns": 1, "angles_per_turn": 24, "exposure_s": 0.02, "darks": 3, "flats": 3}
FRAMES = 30
GEOMETRY = GeometrySettings(kind="parallel", pixel_mm=1.0)

Devices = tuple[TomoCamera, RotationStage, Shutter, SamplePositioner]


@pytest.fixture(scope="module")
def devices(sim: Sim) -> Devices:
    made = (
        TomoCamera(f"{sim.prefix}DET:", name="camera"),
        RotationStage(f"{sim.prefix}ROT", name="stage"),
        Shutter(f"{sim.prefix}SHUTTER", name="shutter"),
        SamplePositioner(f"{sim.prefix}SAMPLE", name="sample"),
    )
    for device in made:
        device.wait_for_connection(timeout=SOON_S)
    return made


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    settings = load_settings(environment={}, learn={"enabled": False}, intake={"file_patience_s": 20.0})
    with Session(settings, sinks=[]) as running:
        yield running


def put(sim: Sim, name: str, value: Any) -> None:
    signal = EpicsSignal(sim.prefix + name, name="put")
    signal.wait_for_connection(timeout=SOON_S)
    signal.put(value, wait=True, timeout=SOON_S)


def scan(devices: Devices, session: Session, *, swmr: bool = True) -> SessionStatus:
    """Return what is told of a run that has ended."""
    devices[0].hdf5.swmr_mode.put(int(swmr), wait=True, timeout=SOON_S)
    with ending_engine() as engine:
        engine.subscribe(JITCallback(session))
        result = engine(tomo_scan(*devices, geometry=GEOMETRY, **SCAN))
    uid = result[0] if isinstance(result, tuple) else result.run_start_uids[0]
    assert session.wait_for(lambda status: status.run_uid == uid and status.state == "idle", SOON_S)
    return session.status


def figures(status: SessionStatus) -> dict[str, int]:
    return {
        "darks": status.darks,
        "flats": status.flats,
        "projections": status.projections,
        "lost": status.frames_lost,
        "missing": status.frames_missing,
        "duplicate": status.frames_duplicate,
        "corrupt": status.frames_corrupt,
    }


WHOLE = {"darks": 3, "flats": 3, "projections": 24, "lost": 0, "missing": 0, "duplicate": 0, "corrupt": 0}


@pytest.mark.parametrize("swmr", [True, False], ids=["file read live", "file read after the run"])
def test_what_pva_loses_comes_from_the_file(sim: Sim, devices: Devices, session: Session, swmr: bool) -> None:
    put(sim, "FAULT:Where", "PVA")
    put(sim, "FAULT:Drop", 5)
    status = scan(devices, session, swmr=swmr)
    assert figures(status) == WHOLE
    # pvAccess may lose more on a busy machine; all of it comes from the file.
    assert status.frames_backfilled >= 5
    assert status.frames_tapped + status.frames_backfilled == FRAMES
    assert status.message == ""


def test_frames_come_from_the_file_while_pva_is_stalled(sim: Sim, devices: Devices, session: Session) -> None:
    put(sim, "DET:Pva1:EnableCallbacks", "Disable")
    try:
        status = scan(devices, session)
    finally:
        put(sim, "DET:Pva1:EnableCallbacks", "Enable")
    assert figures(status) == WHOLE
    assert (status.frames_tapped, status.angle_source) == (0, "same stream")
    assert "its plugin sends none (EnableCallbacks): they are taken from its records" in status.message


def test_what_the_detector_itself_loses_and_repeats_is_counted_once(
    sim: Sim, devices: Devices, session: Session
) -> None:
    put(sim, "FAULT:Where", "Everywhere")
    put(sim, "FAULT:Duplicate", 1)
    status = scan(devices, session)
    # The repeat has taken the place of the last dark in the file; the tap has brought all three.
    assert figures(status) == {**WHOLE, "duplicate": 1}
    assert "came twice: the repeats were left out" in status.message
