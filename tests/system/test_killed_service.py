"""`kill -9` of the service, or of the RunEngine, in the middle of a scan: the others go on, and nothing is lost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest
from failing_beamline import ANGLES, SHORT, SOON_S, Beamline, Console
from servers import LOOPBACK, wait_for
from tiled.queries import Eq

from bluesky_jit.archive import connect, jit_catalog
from bluesky_jit.cli.simulated import SimulatedBeamline
from bluesky_jit.cli.watch import Watch
from bluesky_jit.learn.checkpoint import Checkpoints

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("ca_repeater"), pytest.mark.timeout(600)]

ENDLESS = {**SHORT, "turns": 25, "angles_per_turn": 120, "exposure_s": 0.05}
"""Ended by Ctrl-C, long before its time. Each turn leaves records that Tiled takes its time for."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def beamline(ca_repeater: None, folder: Path) -> Iterator[Beamline]:
    learn = {"checkpoint_folder": str(folder / "checkpoints"), "checkpoint_every_s": 0.2}
    small = ("--rows", "32", "--columns", "40")
    with (
        SimulatedBeamline(folder, ioc_options=small, settings={"learn": learn}) as simulated,
        pytest.MonkeyPatch.context() as patch,
    ):
        settings = simulated.settings
        patch.setenv("EPICS_CA_ADDR_LIST", f"{LOOPBACK}:{settings.beamline.ca_port}")
        serve, console = simulated.serve(), Console(simulated.settings_file)
        try:
            serve.wait_until_ready(SOON_S)
            console.wait_until_ready()
            with Watch(settings) as watch:
                beamline = Beamline(simulated, console, watch)
                yield beamline
                console = beamline.console
        finally:
            console.close()


def test_a_service_that_is_killed_goes_on_where_it_was(beamline: Beamline, folder: Path) -> None:
    beamline.start(**ENDLESS)
    uid = beamline.value("RunUid")
    checkpoints = Checkpoints(folder / "checkpoints" / uid)
    wait_for(lambda: [*checkpoints.folder.glob("*.pt")], timeout_s=SOON_S, what="a checkpoint")
    beamline.simulated.child("serve").kill()
    state = checkpoints.newest()
    assert state is not None
    beamline.simulated.serve().wait_until_ready(SOON_S)

    def goes_on() -> bool:
        values = beamline.watch.values()
        return values["RunUid"] == uid and values["Learning:Step"] > state["step"]

    wait_for(goes_on, timeout_s=SOON_S, what="training from the checkpoint on")
    ended = beamline.console.press_ctrl_c()
    assert ended["uid"] == uid
    beamline.wait_until_finished(uid)
    with h5py.File(max((folder / "frames").glob("*primary*.h5")), "r", locking=False, swmr=True) as file:
        rows = len(file["/entry/data/data"])
    assert rows > ANGLES
    assert (beamline.value("Projections"), beamline.value("FramesLost")) == (rows, 0)
    # Which takes the flats, too, whose documents had come to the session that died.
    assert beamline.watch.image("XY:Raw")[1]["RunUid"] == uid
    check_linked_runs(beamline, uid, ended["status"])
    beamline.check_that_the_next_run_works()


def check_linked_runs(beamline: Beamline, uid: str, status: str) -> None:
    """The killed session's record is ended by the next one, whose own says which one it continues."""
    client = connect(beamline.simulated.settings.tiled)

    def linked() -> list[dict[str, Any]]:
        found = jit_catalog(client).search(Eq("start.raw_run", uid))
        return [dict(run.metadata) for run in found.values()]

    wait_for(lambda: sum("stop" in run for run in linked()) == 2, timeout_s=SOON_S, what="both linked runs")
    first, second = linked()
    client.context.close()
    assert first["stop"]["exit_status"] == "fail"
    assert first["stop"]["reason"] == "the session ended before the run did"
    assert (second["stop"]["exit_status"], second["stop"]["reason"]) == (status, "")
    assert not {"continues", "caught_up"} & first["start"].keys()
    assert second["start"]["caught_up"]
    assert second["start"]["continues"] == first["start"]["uid"]


def test_a_run_whose_runengine_is_killed_is_ended_and_the_next_one_works(beamline: Beamline) -> None:
    beamline.start(**ENDLESS)
    uid = beamline.value("RunUid")
    beamline.console.kill()
    beamline.wait_until_finished(uid)
    # A busy machine may have worse to say in the message.
    log = beamline.simulated.child("serve").log.read_text()
    assert re.search(f"run {uid[:8]} ended as 'fail' after .*: the RunEngine's process ended in the middle of it", log)
    # Nobody is left to stop the stage.
    beamline.simulated.child("ioc").kill()
    beamline.simulated.ioc().wait_until_ready(SOON_S)
    beamline.console = Console(beamline.simulated.settings_file)
    beamline.console.wait_until_ready()
    ended = beamline.console.scan(**SHORT)
    assert (ended["status"], ended["error"]) == ("success", "")
    beamline.wait_until_finished(ended["uid"])
    assert (beamline.value("Projections"), beamline.value("FramesLost")) == (2 * ANGLES, 0)
