"""Frames of a run whose files are on another machine come from the Tiled server that has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from bluesky_tiled_plugins import TiledWriter
from recorder import Recorder, filed_run
from tiled.server import SimpleTiledServer

from bluesky_jit import JITCallback
from bluesky_jit.archive import address, connect, raw_catalog
from bluesky_jit.intake.frames import FramesNotReady, RunFrames
from bluesky_jit.messages import Asset, AssetFrames, InlineFrames
from bluesky_jit.settings_sections import TiledSettings

pytestmark = pytest.mark.system

KEY = "secret"
N = 6
COLUMNS = {"camera": "/data", "camera_angle": "/angle", "camera_unique_id": "/id", "camera_time": "/time"}
TYPES = {"camera": "<u2", "camera_angle": "<f8", "camera_unique_id": "<i8", "camera_time": "<f8"}
TIME_S = 1_790_000_000.0


@dataclass
class Archive:
    settings: TiledSettings
    messages: list[AssetFrames]
    """What a session on another machine is told of the run."""

    def frames(self) -> RunFrames:
        return RunFrames(self.messages[0].run_uid, tiled=self.settings)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    folder = tmp_path_factory.mktemp("frames")
    path = folder / "frames.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.arange(N * 24, dtype=np.uint16).reshape(N, 4, 6)
        file["angle"], file["id"] = 3.0 * np.arange(N), 100 + np.arange(N)
        file["time"] = TIME_S + np.arange(N)
    with SimpleTiledServer(tmp_path_factory.mktemp("tiled"), api_key=KEY, readable_storage=[folder]) as server:
        settings = TiledSettings(uri=server.uri)
        client = connect(settings)
        writer = TiledWriter(raw_catalog(client), batch_size=1)
        recorder = Recorder()
        callback = JITCallback(recorder)

        def emit(name: str, document: Any) -> None:
            if name == "descriptor":
                # Tiled believes these, and not the file.
                for key, data_key in document["data_keys"].items():
                    data_key["dtype_numpy"] = TYPES[key]
            writer(name, document)
            callback(name, document)

        rows = {key: [(0, 4), (4, N)] for key in COLUMNS}
        filed_run(emit, path, rows, columns=COLUMNS)
        client.context.close()
        yield Archive(settings, [elsewhere(message, path) for message in recorder.of(AssetFrames)])


def elsewhere(message: AssetFrames, path: Path) -> AssetFrames:
    """Return the message as another machine would get it: with a path that means nothing here."""

    def moved(asset: Asset | None) -> Asset | None:
        return None if asset is None else replace(asset, uri=f"file://detector.example{path}")

    image = moved(message.image)
    assert image is not None
    return replace(
        message,
        image=image,
        angle=moved(message.angle),
        unique_id=moved(message.unique_id),
        frame_time=moved(message.frame_time),
    )


def test_frames_come_with_their_own_angle_number_and_time(archive: Archive) -> None:
    run = archive.frames()
    blocks = [run.frames(message) for message in archive.messages]
    run.close()
    counts = np.concatenate([block.counts for block in blocks])
    np.testing.assert_array_equal(counts, np.arange(N * 24).reshape(N, 4, 6))
    assert np.concatenate([block.angles_rad for block in blocks]) == pytest.approx(np.deg2rad(3.0 * np.arange(N)))
    assert np.concatenate([block.unique_ids for block in blocks]).tolist() == [100, 101, 102, 103, 104, 105]
    assert np.concatenate([block.frame_times_s for block in blocks]).tolist() == (TIME_S + np.arange(N)).tolist()


def test_only_what_the_tap_lost_is_fetched(archive: Archive) -> None:
    run = archive.frames()
    other = np.full((4, 4, 6), 9, dtype=np.uint16)
    run.frames(
        InlineFrames(
            run_uid=archive.messages[0].run_uid,
            kind="projection",
            counts=other,
            unique_ids=np.array([100, 101, 103, 105]),
            frame_times_s=TIME_S + np.array([0.0, 1.0, 3.0, 5.0]),
            angles_rad=np.deg2rad([0.0, 3.0, 9.0, 15.0]),
            angle_source="frame attribute",
            tapped=True,
        )
    )
    fetched = [block for message in archive.messages if len(block := run.frames(message))]
    run.close()
    assert [block.unique_ids.tolist() for block in fetched] == [[102], [104]]
    assert [int(block.counts[0, 0, 0]) for block in fetched] == [2 * 24, 4 * 24]
    assert (run.ledger.received, run.ledger.backfilled, run.ledger.lost) == (N, 2, 0)


def test_rows_that_are_not_recorded_yet_are_waited_for(archive: Archive) -> None:
    last = archive.messages[-1]
    assert last.image.record is not None
    more = replace(last.image, record=replace(last.image.record, first=last.image.record.first + 1))
    run = archive.frames()
    with pytest.raises(FramesNotReady, match=r"has 1 of 2 rows of camera from 5 on") as early:
        run.frames(replace(last, image=more))
    run.close()
    assert early.value.available == 1


def test_a_server_that_does_not_answer_is_named(archive: Archive) -> None:
    run = RunFrames("r", tiled=TiledSettings(uri="http://127.0.0.1:9", api_key=KEY))
    with pytest.raises(FramesNotReady, match=r"http://127.0.0.1:9"):
        run.frames(archive.messages[0])
    run.close()


@pytest.mark.parametrize(
    ("key", "words"),
    [("a-wrong-key", "(refused|did not take the key) .*check tiled.api_key"), ("", "wants a key: give tiled.api_key")],
)
def test_a_key_that_is_wrong_or_missing_is_told_with_the_setting_and_never_shown(
    archive: Archive, key: str, words: str
) -> None:
    place = address(archive.settings.uri)
    run = RunFrames("r", tiled=TiledSettings(uri=place, api_key=key))
    with pytest.raises(FramesNotReady, match=words) as refused:
        run.frames(archive.messages[0])
    run.close()
    assert place.removesuffix("/api/v1") in str(refused.value)
    assert not key or key not in str(refused.value)


def test_without_a_server_the_message_says_what_to_set(archive: Archive) -> None:
    with pytest.raises(ValueError, match=r"only files on this machine.*set tiled.uri"):
        RunFrames("r").frames(archive.messages[0])
