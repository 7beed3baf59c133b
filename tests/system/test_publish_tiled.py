"""Linked runs in Tiled: what is recorded, how it is found again, and that nothing is lost while the server is away."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import free_ports, wait_for
from tiled.client import from_uri
from tiled.queries import Eq
from tiled.server import SimpleTiledServer

from bluesky_jit.archive import jit_catalog, raw_catalog
from bluesky_jit.messages import (
    AnglesUsed,
    ImageKind,
    Learning,
    Problem,
    RunOpened,
    RunStart,
    RunStop,
    SessionStatus,
    Update,
)
from bluesky_jit.publish.tiled import TiledSink
from bluesky_jit.results import results
from bluesky_jit.settings import Settings
from bluesky_jit.settings_sections import TiledSettings
from bluesky_jit.tomo.geometry import ParallelGeometry
from bluesky_jit.tomo.grid import Grid

# A server takes seconds of processor time to start.
pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

RUN = "0a1b2c3d-raw"
KEY = "secret"
GRIDS = {
    "XY": Grid.slice_xy(z_mm=0.5, voxel_mm=0.1, shape=(24, 24)),
    "XZ": Grid.slice_xz(voxel_mm=0.1, shape=(20, 24)),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleTiledServer]:
    with SimpleTiledServer(tmp_path_factory.mktemp("tiled"), api_key=KEY) as server:
        yield server


@contextmanager
def connected(server: SimpleTiledServer) -> Iterator[Any]:
    client = from_uri(server.uri)
    try:
        yield client
    finally:
        client.context.close()


@pytest.fixture(scope="module")
def client(server: SimpleTiledServer) -> Iterator[Any]:
    with connected(server) as client:
        yield client


def settings_for(port: int | None, directory: Path) -> TiledSettings:
    return TiledSettings(uri=f"http://127.0.0.1:{port}", api_key=KEY, spill_directory=str(directory))


def opened(uid: str = RUN) -> RunOpened:
    start = RunStart(run_uid=uid, scan_id=7, plan_name="tomo_scan", time_s=time.time(), tomo={})
    settings = Settings().changed({"tiled": {"api_key": KEY}}).to_dict()
    return RunOpened(start=start, geometry=ParallelGeometry(n_u=24, n_v=20, pixel_mm=0.1), settings=settings)


def update(number: int, turn: int, name: str = "XY", kind: ImageKind = "raw", uid: str = RUN) -> Update:
    grid = GRIDS[name]
    return Update(
        run_uid=uid,
        number=number,
        slice_name=name,
        kind=kind,
        grid=grid,
        image=np.full(grid.shape, number + (0.5 if kind == "denoised" else 0.0), dtype=np.float32),
        angles=AnglesUsed(count=150, first_id=number, last_id=number + 149, arc_rad=6.28, source="same stream"),
        turn=turn,
        flats="this run",
        frame_time_s=1000.0 + number,
        made_time_s=1000.01 + number,
        weights_step=number * 10 if kind == "denoised" else 0,
    )


def publish_run(sink: TiledSink, turns: int = 3) -> None:
    """Publish two updates a turn, denoised from the second turn on."""
    sink.publish(opened())
    for number in range(2 * turns):
        turn = number // 2
        for name in GRIDS:
            sink.publish(update(number, turn, name))
            if turn:
                sink.publish(update(number, turn, name, "denoised"))
        learning = Learning(step=number, accuracy=0.6, loss=0.1)
        sink.publish(SessionStatus(time_s=1000.0 + number, state="running", run_uid=RUN, learning=learning))
    sink.publish(RunStop(run_uid=RUN, time_s=1100.0, exit_status="success"))


@pytest.fixture(scope="module")
def recorded(server: SimpleTiledServer, client: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The client of a server that holds one linked run."""
    sink = TiledSink(settings_for(server.port, tmp_path_factory.mktemp("spill")))
    publish_run(sink)
    assert sink.close(60) == 0
    return client


def test_a_linked_run_is_found_by_the_uid_of_the_raw_run(recorded):
    catalog = jit_catalog(recorded)
    (run,) = catalog.search(Eq("start.raw_run", RUN)).values()
    start = run.metadata["start"]
    assert (start["plan_name"], start["scan_id"], start["geometry"]["kind"]) == ("jit", 7, "parallel")
    assert run.metadata["stop"]["exit_status"] == "success"
    assert catalog[start["uid"][:8]].metadata["start"]["raw_run"] == RUN
    assert catalog[7].metadata["start"]["scan_id"] == 7
    assert catalog[-1].metadata["start"]["plan_name"] == "jit"


def test_provenance_holds_the_settings_but_no_key(recorded):
    (run,) = jit_catalog(recorded).search(Eq("start.raw_run", RUN)).values()
    start = run.metadata["start"]
    assert start["settings"]["learn"]["seed"] == 0
    assert len(start["settings_digest"]) == 16
    assert KEY not in str(start)


def test_one_record_a_turn_holds_raw_and_denoised_of_the_same_update(recorded):
    data = results(RUN, recorded)
    assert set(data) == {"XY", "XZ", "learning"}
    for name in GRIDS:
        found = data[name]
        assert found["update"].values.tolist() == [1, 3, 5]
        assert found["turn"].values.tolist() == [0, 1, 2]
        assert found["ready"].values.tolist() == [False, True, True]
        assert found["weights_step"].values.tolist() == [0, 30, 50]
        assert found["raw"].values[:, 0, 0].tolist() == [1.0, 3.0, 5.0]
        assert np.isnan(found["denoised"].values[0]).all()
        assert found["denoised"].values[1:, 0, 0].tolist() == [3.5, 5.5]
        np.testing.assert_allclose(found["latency_ms"], 10.0, rtol=1e-3)


def test_the_learning_stream_holds_the_scalars(recorded):
    learning = results(RUN, recorded)["learning"]
    assert learning["step"].values.tolist() == list(range(6))
    assert learning["accuracy"].values.tolist() == [0.6] * 6


def test_results_come_with_coordinates_in_mm(recorded):
    found = results(RUN, recorded)
    points = GRIDS["XY"].points()[0]
    np.testing.assert_allclose(found["XY"]["x"], points[0, :, 0], atol=1e-9)
    np.testing.assert_allclose(found["XY"]["y"], points[:, 0, 1], atol=1e-9)
    np.testing.assert_allclose(found["XY"]["origin_z_mm"], 0.5)
    np.testing.assert_allclose(found["XZ"]["y"], GRIDS["XZ"].points()[0, :, 0, 2], atol=1e-9)


def test_a_square_slice_reads_as_a_plain_dataset_with_stock_clients(recorded):
    (run,) = jit_catalog(recorded).search(Eq("start.raw_run", RUN)).values()
    assert run["XY"].read()["raw"].dims == ("time", "y", "x")


def test_an_unknown_run_is_refused_with_a_remedy(recorded):
    with pytest.raises(KeyError, match="full uid"):
        results("nobody", recorded)


def test_a_session_that_ends_in_mid_run_closes_its_linked_run(server, client, tmp_path):
    sink = TiledSink(settings_for(server.port, tmp_path))
    sink.publish(opened("ended"))
    sink.publish(update(0, 0, uid="ended"))
    assert sink.close(60) == 0
    (run,) = jit_catalog(client).search(Eq("start.raw_run", "ended")).values()
    assert run.metadata["stop"]["exit_status"] == "abort"
    assert results("ended", client)["XY"]["update"].values.tolist() == [0]


def test_a_slice_that_changes_its_shape_goes_on_in_a_stream_of_its_own(server, client, tmp_path):
    sink = TiledSink(settings_for(server.port, tmp_path))
    sink.publish(opened("grows"))
    sink.publish(update(0, 0, uid="grows"))
    larger = Grid.slice_xy(voxel_mm=0.1, shape=(30, 31))
    sink.publish(replace(update(1, 1, uid="grows"), grid=larger, image=np.ones(larger.shape, np.float32)))
    assert sink.close(60) == 0
    data = results("grows", client)
    assert (data["XY"]["raw"].shape, data["XY_2"]["raw"].shape) == ((1, 24, 24), (1, 30, 31))


def test_raw_and_linked_runs_live_in_catalogs_of_their_own(client):
    raw, jit = raw_catalog(client), jit_catalog(client)
    assert (raw.item["id"], jit.item["id"]) == ("raw", "jit")
    assert type(raw).__name__ == type(raw_catalog(client)).__name__ == "CatalogOfBlueskyRuns"


def test_nothing_is_lost_when_the_server_comes_late_and_restarts_in_mid_run(tmp_path):
    (port,) = free_ports(1)
    settings, spill = settings_for(port, tmp_path / "spill"), tmp_path / "spill"
    # A session that ends before the server was ever there: the next one sends what it left.
    early = TiledSink(settings)
    publish_run(early, turns=2)
    assert early.close(0.5) > 0
    wait_for(lambda: not early.is_alive(), what="the end of the writer")
    assert list(spill.glob("*/*/*.msgpack"))
    told: list[Problem] = []
    with SimpleTiledServer(tmp_path / "tiled", api_key=KEY, port=port):
        sink = TiledSink(settings, report=told.append)
        wait_for(lambda: not list(spill.glob("*/*/*.msgpack")), what="the early run in Tiled")
        sink.publish(opened("restarts"))
        sink.publish(update(0, 0, uid="restarts"))
        sink.publish(update(1, 1, uid="restarts"))
        wait_for(lambda: sink.waiting == 0, what="the first record in Tiled")
    sink.publish(update(2, 2, uid="restarts"))
    sink.publish(update(3, 3, uid="restarts"))
    wait_for(lambda: sink.waiting > 0, what="the record of a server that is away")
    wait_for(lambda: told, what="the word that records wait")
    with SimpleTiledServer(tmp_path / "tiled", api_key=KEY, port=port) as again:
        sink.publish(update(4, 4, uid="restarts"))
        sink.publish(RunStop(run_uid="restarts", time_s=1100.0, exit_status="success"))
        assert sink.close(90) == 0
        with connected(again) as client:
            early_updates = results(RUN, client)["XY"]["update"].values.tolist()
            found = results("restarts", client)["XY"]
    assert early_updates == [1, 3]
    assert found["update"].values.tolist() == [0, 1, 2, 3, 4]
    assert found["raw"].values[:, 0, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert not list(spill.glob("*/*/*.msgpack"))
    assert sink.dropped == 0
    assert [problem.severity for problem in told] == ["MINOR", "NO_ALARM"]
    assert "does not take records" in told[0].text
    assert "takes records again" in told[1].text
    assert KEY not in str(told)


def test_that_records_wait_is_told_once_and_lasts_over_runs(tmp_path):
    (port,) = free_ports(1)
    told: list[Problem] = []
    sink = TiledSink(settings_for(port, tmp_path), report=told.append)
    sink.publish(opened("first"))
    wait_for(lambda: len(told) == 1, what="the word that records wait")
    sink.publish(opened("second"))
    assert sink.close(0.5) > 0
    wait_for(lambda: not sink.is_alive(), what="the end of the writer")
    [away] = told
    assert (away.lasts, away.severity) == ("Tiled", "MINOR")
    assert f"Tiled at http://127.0.0.1:{port} does not take records" in away.text
    assert "see tiled.uri, tiled.api_key" in away.text
    assert KEY not in away.text
    assert len(away.text) <= 255


def test_a_wrong_key_is_told_with_the_setting_and_never_shown(server, tmp_path):
    told: list[Problem] = []
    settings = replace(settings_for(server.port, tmp_path), api_key="another-key")
    sink = TiledSink(settings, report=told.append)
    sink.publish(opened("refused"))
    wait_for(lambda: told, what="the word that records wait")
    assert sink.close(0.5) > 0
    wait_for(lambda: not sink.is_alive(), what="the end of the writer")
    assert "does not take records" in told[0].text
    assert "API key" in told[0].text
    assert "see tiled.uri, tiled.api_key" in told[0].text
    assert "another-key" not in str(told)


def test_a_full_disk_costs_the_records_that_find_no_room_and_no_other(server, client, tmp_path):
    told: list[Problem] = []
    sink = TiledSink(settings_for(server.port, tmp_path), report=told.append)
    sink.publish(opened("full"))
    wait_for(lambda: list(tmp_path.glob("*/*/*.msgpack")), what="the start on disk")
    obstacle = next(tmp_path.glob("*/*/")) / "00000002.partial"
    obstacle.mkdir()
    sink.publish(update(0, 0, uid="full"))
    sink.publish(update(1, 1, uid="full"))
    wait_for(lambda: sink.dropped == 1, what="the record that finds no room")
    obstacle.rmdir()
    sink.publish(update(2, 2, uid="full"))
    assert sink.close(60) == 0
    assert results("full", client)["XY"]["update"].values.tolist() == [1, 2]
    assert [problem.severity for problem in told] == ["MAJOR"]
    assert "free some space" in told[0].text


def test_a_slow_disk_costs_updates_and_leaves_a_whole_run(server, client, tmp_path, monkeypatch):
    told: list[Problem] = []
    sink = TiledSink(settings_for(server.port, tmp_path), report=told.append)
    sink.publish(opened("slow"))
    with monkeypatch.context() as patch:
        patch.setattr("bluesky_jit.publish.tiled.QUEUE", 0)
        sink.publish(update(0, 0, uid="slow"))
        sink.publish(update(1, 1, uid="slow"))
    sink.publish(update(2, 2, uid="slow"))
    sink.publish(update(3, 3, uid="slow"))
    assert sink.close(60) == 0
    assert results("slow", client)["XY"]["update"].values.tolist() == [2, 3]
    assert (sink.dropped, [problem.severity for problem in told]) == (2, ["MAJOR"])
    assert "too slow" in told[0].text
