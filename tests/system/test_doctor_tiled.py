"""Tiled, asked as a session and a console would use it, and left as it was."""

from __future__ import annotations

import http.server
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from bluesky_tiled_plugins import TiledWriter
from conftest import LOOPBACK, free_ports
from event_model import compose_run
from tiled.client import from_uri
from tiled.server import SimpleTiledServer

from bluesky_jit.archive import raw_catalog
from bluesky_jit.doctor.finding import Finding
from bluesky_jit.doctor.records import look
from bluesky_jit.settings import load_settings

pytestmark = pytest.mark.system

KEY = secrets.token_hex(16)


def found_at(uri: str, key: str = KEY) -> dict[str, Finding]:
    found = look(load_settings(environment={}, tiled={"uri": uri, "api_key": key}))
    return {each.subject: each for each in found}


class Archive:
    """A server that may read the folder `readable`, and runs recorded there."""

    def __init__(self, server: SimpleTiledServer, folder: Path) -> None:
        self.uri = f"http://{LOOPBACK}:{server.port}"
        self.readable, self.elsewhere = folder / "readable", folder / "elsewhere"
        self.client = from_uri(self.uri, api_key=KEY)

    def record(self, folder: Path) -> str:
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
        datum = resource.compose_stream_datum(
            {"start": 0, "stop": 1}, {"start": 1, "stop": 2}, descriptor.descriptor_doc
        )
        write = TiledWriter(raw_catalog(self.client))
        for name, document in (
            ("start", run.start_doc),
            ("descriptor", descriptor.descriptor_doc),
            ("stream_resource", resource.stream_resource_doc),
            ("stream_datum", datum),
            ("stop", run.compose_stop()),
        ):
            write(name, document)
        return run.start_doc["uid"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    folder = tmp_path_factory.mktemp("doctor")
    for name in ("readable", "elsewhere"):
        (folder / name).mkdir()
    with SimpleTiledServer(folder / "tiled", api_key=KEY, readable_storage=[folder / "readable"]) as server:
        archive = Archive(server, folder)
        yield archive
        archive.client.context.close()


def test_a_server_without_runs_is_fine_and_stays_as_it_was(archive: Archive) -> None:
    found = found_at(archive.uri)
    assert {each.verdict for each in found.values()} == {"fine"}
    assert found["Tiled"].text == f"{archive.uri} answers and lets results be written to `jit`"
    assert "no run with the camera's files is recorded yet" in found["Tiled files"].text
    assert list(archive.client) == []


def test_files_that_tiled_can_read_are_fine_and_others_a_problem(archive: Archive) -> None:
    uid = archive.record(archive.readable)
    assert found_at(archive.uri)["Tiled files"].text == f"frames of run {uid[:8]} are read through Tiled"
    uid = archive.record(archive.elsewhere)
    found = found_at(archive.uri)["Tiled files"]
    assert (found.verdict, f"of run {uid[:8]} (500): add its folder to Tiled's readable_storage" in found.text) == (
        "problem",
        True,
    ), found.text
    # The newest counts.
    archive.record(archive.readable)
    assert found_at(archive.uri)["Tiled files"].verdict == "fine"
    assert list(archive.client) == ["raw"]


def test_a_key_that_is_not_taken_is_a_problem(archive: Archive) -> None:
    for key, words in (("another", "does not take the key"), ("", "wants a key to write")):
        found = found_at(archive.uri, key)
        assert (found["Tiled"].verdict, words in found["Tiled"].text) == ("problem", True)
        assert found.keys() == {"Tiled"}
        assert "set tiled.api_key" in found["Tiled"].text


def test_no_server_is_a_problem_and_no_address_a_warning() -> None:
    [port] = free_ports(1)
    assert found_at(f"http://{LOOPBACK}:{port}")["Tiled"].verdict == "problem"
    assert found_at("")["Tiled"].verdict == "warning"


def test_another_server_is_told_from_tiled() -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(404)

        def log_message(self, *_: Any) -> None: ...

    with http.server.HTTPServer((LOOPBACK, 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        found = found_at(f"http://{LOOPBACK}:{server.server_port}")["Tiled"]
        server.shutdown()
        thread.join()
    assert (found.verdict, "answers 404 (Not Found): is it Tiled?" in found.text) == ("problem", True)


def test_a_key_in_the_address_is_not_shown(archive: Archive) -> None:
    found = found_at(f"{archive.uri}?api_key=secret")
    assert not [each for each in found.values() if "secret" in each.text]
