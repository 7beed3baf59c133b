"""Records of runs that go on at a time: each has its own documents, whatever comes between."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import numpy as np

from bluesky_jit.messages import AnglesUsed, RunOpened, RunStart, RunStop, SessionStatus, Update
from bluesky_jit.publish.run_folder import left_behind
from bluesky_jit.publish.tiled import TiledSink
from bluesky_jit.settings_sections import TiledSettings
from bluesky_jit.tomo.geometry import ParallelGeometry
from bluesky_jit.tomo.grid import Grid

UIDS = ("a", "b")
SOON_S = 30.0


def opened(uid: str) -> RunOpened:
    start = RunStart(run_uid=uid, scan_id=1, plan_name="tomo_scan", time_s=0.0, tomo={})
    return RunOpened(start=start, geometry=ParallelGeometry(n_u=4, n_v=4, pixel_mm=1.0), settings={})


def update(uid: str, turn: int) -> Update:
    return Update(
        run_uid=uid,
        number=turn,
        slice_name="XY",
        kind="raw",
        grid=Grid.slice_xy(voxel_mm=1.0, shape=(4, 4)),
        image=np.full((1, 4, 4), turn + 100 * UIDS.index(uid), dtype=np.float32),
        angles=AnglesUsed(count=1, first_id=0, last_id=0, arc_rad=1.0, source="same stream"),
        turn=turn,
        flats="this run",
        frame_time_s=0.0,
        made_time_s=0.0,
    )


def test_interleaved_runs_have_a_record_each_with_their_own_slices_and_end(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        sink = TiledSink(TiledSettings(uri=uri, spill_directory=str(tmp_path)), report=lambda _: None)
        for uid in UIDS:
            sink.publish(opened(uid))
        for turn in range(3):
            for uid in UIDS:
                sink.publish(update(uid, turn))
        status = SessionStatus(time_s=1.0, run_uid="a", frames_received=11, on_show=False)
        sink.publish(status)
        sink.publish(replace(status, run_uid="b", frames_received=22, on_show=True))
        for uid, exit_status in (("b", "success"), ("a", "fail")):
            sink.publish(RunStop(run_uid=uid, time_s=2.0, exit_status=exit_status))
        sink.close(timeout_s=0.5)
        # It leaves the folders to whoever comes next when it has ended.
        sink._writer.join(SOON_S)
    records = {}
    for folder in left_behind(next(tmp_path.iterdir())):
        documents = [folder.read(index) for index in range(folder.count)]
        records[documents[0][1]["raw_run"]] = documents
        folder.close()
    assert set(records) == set(UIDS)
    for uid, exit_status, received in (("a", "fail", 11), ("b", "success", 22)):
        names = [name for name, _ in records[uid]]
        assert (names.count("start"), names.count("stop")) == (1, 1)
        events = [document["data"] for name, document in records[uid] if name == "event"]
        shown = [int(data["raw"][0, 0]) for data in events if "raw" in data]
        assert shown == [turn + 100 * UIDS.index(uid) for turn in range(3)]
        assert [data["frames_received"] for data in events if "frames_received" in data] == [received]
        assert records[uid][-1][1]["exit_status"] == exit_status
