"""`bluesky-jit doctor` on the simulated beamline: all is fine, one thing after the other is not, and nothing runs."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from bluesky_tiled_plugins import TiledWriter
from event_model import compose_run
from servers import free_ports, wait_for

from bluesky_jit.archive import connect, raw_catalog
from bluesky_jit.cli.processes import own_environment
from bluesky_jit.cli.simulated import SimulatedBeamline
from bluesky_jit.doctor.finding import Finding
from bluesky_jit.doctor.records import look

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


# ── Tiled ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def asked(beamline: SimulatedBeamline, **tiled: str) -> dict[str, Finding]:
    """Return what is found of the beamline's Tiled server."""
    return {each.subject: each for each in look(beamline.settings.changed({"tiled": tiled}))}


@pytest.fixture
def client(beamline: SimulatedBeamline) -> Iterator[Any]:
    client = connect(beamline.settings.tiled)
    yield client
    client.context.close()


def record(client: Any, folder: Path) -> str:
    """Record a run of one frame in a file in a folder, as a camera's."""
    run = compose_run(metadata={"plan_name": "tomo_scan"})
    file = folder / f"{run.start_doc['uid'][:8]}.h5"
    with h5py.File(file, "w") as written:
        written["data"] = np.ones((1, 3, 4), np.uint16)
    keys: dict[str, Any] = {
        "camera": {"source": "PV", "dtype": "array", "dtype_numpy": "<u2", "shape": [3, 4], "external": "STREAM:"}
    }
    descriptor = run.compose_descriptor(name="primary", data_keys=keys)
    resource = run.compose_stream_resource(
        mimetype="application/x-hdf5",
        uri=f"file://localhost{file}",
        data_key="camera",
        parameters={"dataset": "data", "chunk_shape": [1, 3, 4]},
    )
    datum = resource.compose_stream_datum({"start": 0, "stop": 1}, {"start": 1, "stop": 2}, descriptor.descriptor_doc)
    write = TiledWriter(raw_catalog(client))
    for name, document in (
        ("start", run.start_doc),
        ("descriptor", descriptor.descriptor_doc),
        ("stream_resource", resource.stream_resource_doc),
        ("stream_datum", datum),
        ("stop", run.compose_stop()),
    ):
        write(name, document)
    return run.start_doc["uid"]


def test_files_that_tiled_can_read_are_fine_and_others_a_problem(
    beamline: SimulatedBeamline, client: Any, tmp_path: Path
) -> None:
    assert "no run with the camera's files is recorded yet" in asked(beamline)["Tiled files"].text
    before = list(client)
    uid = record(client, beamline.frames)
    assert asked(beamline)["Tiled files"].text == f"frames of run {uid[:8]} are read through Tiled"
    uid = record(client, tmp_path)
    found = asked(beamline)["Tiled files"]
    assert found.verdict == "problem"
    assert f"of run {uid[:8]} (500): add its folder to Tiled's readable_storage" in found.text
    # The newest counts.
    record(client, beamline.frames)
    assert asked(beamline)["Tiled files"].verdict == "fine"
    assert list(client) == before


@pytest.mark.parametrize(
    ("key", "words"), [(secrets.token_hex(16), "does not take the key"), ("", "wants a key to write")]
)
def test_a_key_that_is_not_taken_is_a_problem(beamline: SimulatedBeamline, key: str, words: str) -> None:
    [found] = asked(beamline, api_key=key).values()
    assert (found.subject, found.verdict) == ("Tiled", "problem")
    assert words in found.text
    assert "set tiled.api_key" in found.text


def test_a_key_in_the_address_is_not_shown(beamline: SimulatedBeamline) -> None:
    found = asked(beamline, uri=f"{beamline.settings.tiled.uri}?api_key=secret", api_key="")
    assert not [each for each in found.values() if "secret" in each.text]


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
