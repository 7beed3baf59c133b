"""`bluesky-jit doctor` on the simulated beamline: all is fine, one thing after the other is not, and nothing runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import free_ports, wait_for

from bluesky_jit.cli.processes import own_environment
from bluesky_jit.cli.simulated import SimulatedBeamline

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("ca_repeater"), pytest.mark.timeout(300)]

READY_S = 120.0
ENVIRONMENT = own_environment() | {
    "OMP_NUM_THREADS": "1",
    "EPICS_CA_REPEATER_PORT": os.environ["EPICS_CA_REPEATER_PORT"],
}


def doctor(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bluesky_jit.cli", "doctor", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=200, env=ENVIRONMENT, cwd=folder
    )


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
    """Return what each subject's line says; the last one of a subject."""
    lines = [line.split(maxsplit=1) for line in done.stdout.partition("\n\n")[0].splitlines()]
    return {rest[: len("frame files")].strip(): (verdict, rest) for verdict, rest in lines}


@pytest.fixture(scope="module")
def beamline(tmp_path_factory: pytest.TempPathFactory, ca_repeater: None) -> Iterator[SimulatedBeamline]:
    with SimulatedBeamline(tmp_path_factory.mktemp("beamline"), settings={"learn": {"enabled": False}}) as beamline:
        beamline.serve().wait_until_ready(READY_S)
        yield beamline


def test_on_a_beamline_where_all_is_well_every_line_is_fine(beamline: SimulatedBeamline, tmp_path: Path) -> None:
    before = sorted(path for path in beamline.directory.rglob("*") if "logs" not in path.parts)
    done = doctor("--settings", str(beamline.settings_file), folder=tmp_path)
    assert done.returncode == 0, done.stdout
    lines, _, last = done.stdout.strip().partition("\n\n")
    # A machine may have one core, or a GPU that cannot be used: that is no matter of the beamline.
    about_us = [line for line in lines.splitlines() if line.split()[1] not in ("threads", "GPU", "disk")]
    assert [line for line in about_us if not line.startswith("fine ")] == []
    found = findings(done)
    for subject in ("settings", "geometry", "camera", "stage", "shutter", "sample", "pvAccess", "session", "documents"):
        assert subject in found
    assert "JIT:* is served and lives: idle" in found["session"][1]
    assert "answers and lets results be written to `jit`" in lines
    assert last in ("all is fine",) or "could make it better" in last
    # Nothing was changed by it, and it said nothing beside it.
    assert sorted(path for path in beamline.directory.rglob("*") if "logs" not in path.parts) == before
    assert done.stderr == ""


def test_what_is_wrong_is_told_with_its_remedy_and_the_rest_is_looked_at(
    beamline: SimulatedBeamline, tmp_path: Path
) -> None:
    wrong = {
        "beamline.shutter": "SIM:NOSUCH",
        "learn.splits": "1",
        "tiled.api_key": "another",
        "serve.publish_address": f"127.0.0.1:{free_ports(1)[0]}",
        "epics.prefix": "NOBODY:",
        "beamline.file_directory": "/nowhere",
    }
    options = [part for place, value in wrong.items() for part in ("--set", f"{place}={value}")]
    done = doctor("--settings", str(beamline.settings_file), "--json", *options, folder=tmp_path)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    problems = {each["subject"]: each["text"] for each in found if each["verdict"] == "problem"}
    assert problems.keys() == {"settings", "shutter", "documents", "Tiled", "frame files"}
    assert "--set: learn.splits is 1: give at least 2" in problems["settings"]
    assert "SIM:NOSUCH does not answer" in problems["shutter"]
    assert "start `bluesky-jit serve`" in problems["documents"]
    assert "set tiled.api_key" in problems["Tiled"]
    assert problems["frame files"].startswith("/nowhere, where the camera writes, cannot be read here")
    [session] = [each for each in found if each["subject"] == "session"]
    assert session["verdict"] == "warning"
    assert "nobody serves NOBODY:*: no session runs, and something else has CA port" in session["text"]
    fine = {each["subject"] for each in found if each["verdict"] == "fine"}
    assert {"camera", "stage", "sample", "pvAccess", "packages"} <= fine


def test_a_session_that_was_killed_and_an_ioc_that_ended_are_problems(
    beamline: SimulatedBeamline, tmp_path: Path
) -> None:
    beamline.child("serve").kill()
    beamline.child("ioc").stop()
    wait_for(lambda: len(beamline.lost()) == 2)
    done = doctor("--settings", str(beamline.settings_file), folder=tmp_path)
    assert done.returncode == 1
    found = findings(done)
    wanted = {"camera": "problem", "stage": "problem", "documents": "problem", "session": "fine", "pvAccess": "warning"}
    assert {subject: found[subject][0] for subject in wanted} == wanted
    assert "nobody serves JIT:*" in found["session"][1]


def test_where_nothing_runs_every_line_says_what_to_do(tmp_path: Path) -> None:
    ports = free_ports(6)
    places = ("epics.ca_port", "epics.pva_port", "beamline.ca_port", "beamline.pva_port")
    values = dict(zip(places, ports, strict=False)) | {
        "serve.publish_address": f"127.0.0.1:{ports[4]}",
        "tiled.uri": f"http://127.0.0.1:{ports[5]}",
        "tiled.spill_directory": str(tmp_path / "spill"),
    }
    options = [part for place, value in values.items() for part in ("--set", f"{place}={value}")]
    done = doctor(*options, folder=tmp_path)
    assert done.returncode == 1
    found = findings(done)
    problems = {subject for subject, (verdict, _) in found.items() if verdict == "problem"}
    assert problems == {"camera", "stage", "shutter", "sample", "documents", "Tiled"}
    assert "give --settings, or set BLUESKY_JIT_SETTINGS" in found["settings"][1]
    assert "runs that do not bring them in their `tomo` block" in found["geometry"][1]
    assert "Traceback" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
