"""Records that wait for Tiled leave room on their disk, and a run's start and stop are among them all the same."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from servers import free_ports, wait_for

from bluesky_jit.messages import AnglesUsed, Problem, RunOpened, RunStart, RunStop, Update
from bluesky_jit.publish import tiled
from bluesky_jit.publish.run_folder import left_behind
from bluesky_jit.publish.tiled import LEAST_FREE, LEAST_FREE_BYTES, MANY, TiledSink
from bluesky_jit.settings import Settings
from bluesky_jit.settings_sections import TiledSettings
from bluesky_jit.tomo.geometry import ParallelGeometry
from bluesky_jit.tomo.grid import Grid

GRID = Grid.slice_xy(voxel_mm=0.1, shape=(4, 4))
SMALL, LARGE = 1e9, 1e15


def update(turn: int) -> Update:
    return Update(
        run_uid="raw",
        number=turn,
        slice_name="XY",
        kind="raw",
        grid=GRID,
        image=np.zeros(GRID.shape, dtype=np.float32),
        angles=AnglesUsed(count=4, first_id=0, last_id=3, arc_rad=6.28, source="same stream"),
        turn=turn,
        flats="this run",
        frame_time_s=1000.0 + turn,
        made_time_s=1000.0 + turn,
    )


@pytest.mark.parametrize("total", [SMALL, LARGE])
@pytest.mark.parametrize("nearly_full", [True, False])
def test_only_so_many_records_wait_on_a_disk_that_is_nearly_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: float, nearly_full: bool
) -> None:
    least = min(LEAST_FREE * total, LEAST_FREE_BYTES)
    usage = (total, total - least, least + (-1 if nearly_full else 1))
    monkeypatch.setattr(tiled.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(*usage))
    told: list[Problem] = []
    (port,) = free_ports(1)
    sink = TiledSink(TiledSettings(uri=f"http://127.0.0.1:{port}", spill_directory=str(tmp_path)), report=told.append)
    start = RunStart(run_uid="raw", scan_id=7, plan_name="", time_s=time.time(), tomo={})
    geometry = ParallelGeometry(n_u=4, n_v=4, pixel_mm=0.1)
    sink.publish(RunOpened(start=start, geometry=geometry, settings=Settings().to_dict()))
    for turn in range(2 * MANY):
        sink.publish(update(turn))
        if turn % 50 == 49:
            wait_for(lambda: sink._queue.empty(), what="the recorder")
    sink.publish(RunStop(run_uid="raw", time_s=1.0, exit_status="success"))
    sink.close(0.5)
    wait_for(lambda: not sink.is_alive(), what="the end of the writer")
    (folder,) = left_behind(sink._directory)
    documents = [folder.read(index) for index in range(folder.count)]
    folder.close()
    events = sum(name == "event" for name, _ in documents)
    assert (documents[0][0], documents[-1][0]) == ("start", "stop")
    assert events + sink.dropped == 2 * MANY
    assert (MANY / 2 < events < MANY) if nearly_full else sink.dropped == 0
    texts = [problem.text for problem in told if "nearly full" in problem.text]
    assert len(texts) == nearly_full
    assert all("free some space" in text for text in texts)
