"""The scripts of docs/tutorials/your-own-script.md work as they stand there, against a simulated beamline."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import wait_for
from tiled.queries import Eq

from bluesky_jit.cli.simulated import SimulatedBeamline

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "your-own-script.md"
SCRIPTS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
SCRIPT_S = 250.0
SOON_S = 90.0


@pytest.fixture(scope="module")
def beamline(ca_repeater: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedBeamline]:
    """What `bluesky-jit sim` starts, in the folder where the scripts look for it."""
    with SimulatedBeamline(tmp_path_factory.mktemp("tutorial") / "jit-data") as beamline:
        yield beamline


def run(script: str, beamline: SimulatedBeamline) -> str:
    """Run a script as a reader does, in the folder above jit-data; return what it prints."""
    # The tests' own addresses would hide those of the settings. The repeater is the one that the tests stand in for.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("EPICS_", "BLUESKY_JIT_")) or name == "EPICS_CA_REPEATER_PORT"
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=beamline.directory.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SCRIPT_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_callback_in_a_script_gives_slices(beamline: SimulatedBeamline) -> None:
    printed = run(SCRIPTS[0], beamline)

    assert "480 projections, 0 lost \n" in printed
    assert "XY raw: (1, 159, 159) in 1/mm from 120 projections" in printed
    # How soon the network is ready depends on the machine; it always says how far it is.
    assert "learning: " in printed
    if "is below 0.75" in printed:
        assert "XY denoised: (1, 159, 159) in 1/mm from 120 projections" in printed


def test_a_script_sends_its_run_to_a_session_elsewhere(beamline: SimulatedBeamline) -> None:
    from bluesky_jit.archive import connect, jit_catalog
    from bluesky_jit.results import results

    session = beamline.serve()
    session.wait_until_ready(90.0)

    printed = run(SCRIPTS[1], beamline)
    client = connect(beamline.settings.tiled)
    uid = client["raw"][-1].metadata["start"]["uid"]
    ours = jit_catalog(client).search(Eq("start.raw_run", uid))
    wait_for(lambda: [run for run in ours.values() if run.metadata.get("stop")], timeout_s=SOON_S, what="the record")
    session.stop()

    assert "recorded: <BlueskyRun" in printed
    slices = results(uid, client)
    client.context.close()
    assert slices["XY"].sizes["x"] == 159
    assert int(slices["learning"]["frames_received"][-1]) == 500
