"""The embedded archive takes runs and gives back frames that lie in the detector's files."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import pytest
from bluesky_tiled_plugins import TiledWriter
from event_model import compose_run, compose_stream_resource
from servers import Server
from tiled.client import from_uri

from sim_devices.archive import parse_arguments
from sim_devices.frame import Frame, FrameType
from sim_devices.hdf5_plugin import FrameFile

pytestmark = pytest.mark.system

KEY = secrets.token_hex(16)
SHAPE = (6, 8)
FRAMES = 5


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tmp_path_factory.mktemp("tiled"), tmp_path_factory.mktemp("frames")


@pytest.fixture(scope="module")
def archive(folders: tuple[Path, Path]) -> Iterator[Any]:
    """A client of the running archive."""
    directory, readable = folders
    server = Server(
        "sim_devices.archive",
        *("--directory", str(directory), "--readable", str(readable)),
        environment={"TILED_SINGLE_USER_API_KEY": KEY},
    )
    address = server.wait_ready().removeprefix("ready ")
    client = from_uri(address, api_key=KEY)
    yield client
    client.context.close()
    assert server.stop() == 0


def write_frames(path: Path) -> np.ndarray:
    """Write a file as the simulated detector does; return its counts."""
    rng = np.random.default_rng(3)
    file = FrameFile(path, SHAPE, swmr=True)
    for number in range(FRAMES):
        frame = Frame(
            counts=rng.integers(0, 2**16, SHAPE, dtype=np.uint16),
            unique_id=number + 1,
            time_s=1_700_000_000.0 + number,
            angle_deg=10.0 * number,
            frame_type=FrameType.PROJECTION,
            phantom_time_s=float(number),
        )
        file.append(frame)
    file.close()
    with h5py.File(path) as stored:
        return stored["/entry/data/data"][:]


def emit_run(path: Path, *, scan_id: int, writer: TiledWriter) -> str:
    """Emit a run whose frames lie in a file; return its uid."""
    run = compose_run(metadata={"scan_id": scan_id, "plan_name": "test"})
    writer("start", run.start_doc)
    data_keys = {
        "det_image": {
            "source": "test",
            "dtype": "array",
            "dtype_numpy": "<u2",
            "shape": [1, *SHAPE],
            "external": "STREAM:",
        }
    }
    descriptor = run.compose_descriptor(name="primary", data_keys=data_keys)
    writer("descriptor", descriptor.descriptor_doc)
    resource = compose_stream_resource(
        start=run.start_doc,
        mimetype="application/x-hdf5",
        uri=f"file://localhost{path}",
        data_key="det_image",
        parameters={"dataset": "/entry/data/data", "swmr": True, "chunk_shape": [1, *SHAPE]},
    )
    writer("stream_resource", resource.stream_resource_doc)
    indices = {"start": 0, "stop": FRAMES}
    seq_nums = {"start": 1, "stop": FRAMES + 1}
    datum = resource.compose_stream_datum(descriptor=descriptor.descriptor_doc, indices=indices, seq_nums=seq_nums)
    writer("stream_datum", datum)
    writer("stop", run.compose_stop())
    return run.start_doc["uid"]


def test_a_run_is_read_back_with_the_frames_of_its_file(archive: Any, folders: tuple[Path, Path]):
    path = folders[1] / "frames.h5"
    counts = write_frames(path)
    uid = emit_run(path, scan_id=7, writer=TiledWriter(archive["raw"], batch_size=1))
    catalog = archive["raw"]
    assert catalog[-1].start["uid"] == uid
    assert catalog[7].start["uid"] == uid
    assert catalog[uid[:8]].stop["exit_status"] == "success"
    np.testing.assert_array_equal(np.squeeze(catalog[uid]["primary"]["det_image"].read()), counts)


def test_nothing_is_read_without_the_key(archive: Any):
    url = archive.context.api_uri
    assert url.host == "127.0.0.1"
    assert httpx.get(f"{url}metadata/raw", timeout=10).status_code == 401


def test_a_key_on_the_command_line_where_others_see_it_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parse_arguments(["--directory", "here", "--api-key", KEY])
    assert "unrecognized arguments: --api-key" in capsys.readouterr().err
