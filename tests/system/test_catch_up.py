"""Runs that nobody heard the beginning of: what was missed comes from Tiled, each row once, and none is lost."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from bluesky_tiled_plugins import TiledWriter
from event_model import compose_run
from recorder import TOMO, Recorder
from servers import Server, wait_for

from bluesky_jit.archive import connect, raw_catalog
from bluesky_jit.intake.callback import JITCallback
from bluesky_jit.intake.catch_up import CatchUp
from bluesky_jit.messages import AssetFrames, InlineFrames, Problem, RunStart, RunStop
from bluesky_jit.settings_sections import TiledSettings

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

KEY = secrets.token_hex(16)
SOON_S = 90.0
SHAPE = (4, 6)
COLUMNS = {"camera": "/entry/data/data", "camera_angle": "/angle", "camera_unique_id": "/id"}


@dataclass
class Archive:
    """A Tiled server, and the folder that it can read."""

    settings: TiledSettings
    frames: Path
    catalog: Any

    def writer(self, batch_size: int) -> TiledWriter:
        return TiledWriter(self.catalog, batch_size=batch_size)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    directory, frames = tmp_path_factory.mktemp("tiled"), tmp_path_factory.mktemp("frames")
    server = Server(
        "sim_devices.archive",
        *("--directory", str(directory), "--readable", str(frames)),
        environment={"TILED_SINGLE_USER_API_KEY": KEY},
    )
    settings = TiledSettings(uri=server.wait_ready().removeprefix("ready "), api_key=KEY)
    client = connect(settings)
    yield Archive(settings, frames, raw_catalog(client))
    client.context.close()
    server.stop()


@dataclass
class Joined:
    """A callback that hears a run from some document on."""

    recorder: Recorder
    callback: JITCallback

    def rows(self, kind: str) -> list[int]:
        """Return the rows of the files that were brought, in order."""
        frames = [each for each in self.recorder.of(AssetFrames) if each.kind == kind]
        assert all(each.unique_id.first == each.angle.first == each.image.first for each in frames if each.angle)
        return [row for each in frames for row in range(each.image.first, each.image.first + each.image.count)]

    def stopped(self) -> list[RunStop]:
        return self.recorder.of(RunStop)


@pytest.fixture
def joined(archive: Archive) -> Iterator[Joined]:
    recorder = Recorder()
    catch_up = CatchUp(archive.settings)
    yield Joined(recorder, JITCallback(recorder, catch_up))
    catch_up.close()


Documents = list[tuple[str, Any]]


def filed(archive: Archive, counts: dict[str, int], at_once: int = 2) -> Documents:
    """Return the documents of a run with a file for each stream, `at_once` rows a document."""
    run = compose_run(metadata={"tomo": {**TOMO, "angle_key": "camera_angle"}, "plan_name": "scan", "scan_id": 1})
    documents: Documents = [("start", run.start_doc)]
    for stream, count in counts.items():
        path = archive.frames / f"{run.start_doc['uid']}-{stream}.h5"
        with h5py.File(path, "w", libver="latest") as file:
            file["/entry/data/data"] = np.zeros((count, *SHAPE), np.uint16)
            file["/angle"] = np.arange(float(count))
            file["/id"] = np.arange(count)
        data_keys = {
            key: {
                "source": "PV",
                "dtype": "array" if key == "camera" else "number",
                "dtype_numpy": "<u2" if key == "camera" else "<f8",
                "shape": list(SHAPE) if key == "camera" else [],
                "external": "STREAM:",
            }
            for key in COLUMNS
        }
        descriptor = run.compose_descriptor(name=stream, data_keys=data_keys)
        documents.append(("descriptor", descriptor.descriptor_doc))
        bundles = {
            key: run.compose_stream_resource(
                mimetype="application/x-hdf5",
                uri=f"file://localhost{path}",
                data_key=key,
                parameters={"dataset": dataset, "swmr": True, "chunk_shape": [1]},
            )
            for key, dataset in COLUMNS.items()
        }
        documents += [("stream_resource", bundle.stream_resource_doc) for bundle in bundles.values()]
        for first in range(0, count, at_once):
            stop = min(first + at_once, count)
            for bundle in bundles.values():
                rows = {"start": first, "stop": stop}, {"start": first + 1, "stop": stop + 1}
                documents.append(("stream_datum", bundle.compose_stream_datum(*rows, descriptor.descriptor_doc)))
    return [*documents, ("stop", {**run.compose_stop(), "num_events": counts})]


def inline(count: int) -> Documents:
    """Return the documents of a run whose frames are inside events; each frame is filled with its number."""
    run = compose_run(metadata={"tomo": TOMO, "plan_name": "step_scan", "scan_id": 2})
    keys = {
        "camera_image": {"source": "PV", "dtype": "array", "dtype_numpy": "<u2", "shape": list(SHAPE)},
        "theta": {"source": "PV", "dtype": "number", "shape": [], "units": "deg"},
    }
    descriptor = run.compose_descriptor(name="primary", data_keys=keys)
    documents: Documents = [("start", run.start_doc), ("descriptor", descriptor.descriptor_doc)]
    for number in range(count):
        data = {"camera_image": np.full(SHAPE, number, np.uint16), "theta": 1.0 * number}
        stamps = dict.fromkeys(data, 1000.0 + number)
        documents.append(("event", descriptor.compose_event(data=data, timestamps=stamps)))
    return [*documents, ("stop", run.compose_stop())]


def play(documents: Documents, *callbacks: Any) -> None:
    for name, document in documents:
        for callback in callbacks:
            callback(name, dict(document))


def test_a_run_in_files_is_joined_in_the_middle(archive: Archive, joined: Joined) -> None:
    documents = filed(archive, {"darks": 3, "flats": 4, "primary": 40})
    writer, middle = archive.writer(1), len(documents) // 2 + 1
    play(documents[:middle], writer)
    # It goes on while Tiled is asked.
    play(documents[middle : middle + 6], writer, joined.callback)
    wait_for(lambda: joined.rows("projection"), timeout_s=SOON_S, what="the first rows")
    [start] = joined.recorder.of(RunStart)
    assert start.run_uid == documents[0][1]["uid"]
    assert (joined.rows("dark"), joined.rows("flat")) == ([0, 1, 2], [0, 1, 2, 3])
    before = joined.rows("projection")
    assert before == list(range(len(before)))
    play(documents[middle + 6 :], writer, joined.callback)
    wait_for(joined.stopped, timeout_s=SOON_S, what="the end of the run")
    assert joined.rows("projection") == list(range(40))
    assert (joined.rows("dark"), joined.rows("flat")) == ([0, 1, 2], [0, 1, 2, 3])
    assert joined.recorder.of(Problem) == []


def test_a_record_that_is_written_at_the_end_only_still_fills_the_gap(archive: Archive, joined: Joined) -> None:
    documents = filed(archive, {"flats": 4, "primary": 30})
    writer = archive.writer(10_000)
    play(documents[:-20], writer)
    play(documents[-20:], writer, joined.callback)
    wait_for(joined.stopped, timeout_s=SOON_S, what="the end of the run")
    assert (joined.rows("flat"), joined.rows("projection")) == ([0, 1, 2, 3], list(range(30)))
    assert joined.recorder.of(Problem) == []


def test_frames_inside_events_come_once_and_in_order(archive: Archive, joined: Joined) -> None:
    documents = inline(60)
    writer = archive.writer(25)
    play(documents[:32], writer)
    play(documents[32:], writer, joined.callback)
    wait_for(joined.stopped, timeout_s=SOON_S, what="the end of the run")
    frames = joined.recorder.of(InlineFrames)
    assert [int(each.counts[0, 0, 0]) for each in frames] == list(range(60))
    assert np.concatenate([each.angles_rad for each in frames]) == pytest.approx(np.deg2rad(np.arange(60)))
    assert [each.frame_times_s[0] for each in frames] == [1000.0 + n for n in range(60)]
    assert joined.recorder.of(Problem) == []


def test_a_run_that_tiled_does_not_have_is_told_and_the_next_one_works(archive: Archive) -> None:
    recorder = Recorder()
    catch_up = CatchUp(archive.settings, find_s=0.0)
    callback = JITCallback(recorder, catch_up)
    try:
        play(inline(5)[3:], callback)
        wait_for(lambda: recorder.of(Problem), timeout_s=SOON_S, what="a message")
        play(inline(5), callback)
    finally:
        catch_up.close()
    [problem] = recorder.of(Problem)
    assert problem.text.startswith("joined a run after its start, and Tiled at http://127.0.0.1:")
    assert "does not have it: its slices cannot be made; the next run will be picked up" in problem.text
    assert KEY not in problem.text
    assert len(recorder.of(InlineFrames)) == 5
