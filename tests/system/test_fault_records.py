"""A session whose records have nowhere to go: a full disk, no Tiled. Slices flow, and Tiled has its records later."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import psutil
import pytest
from servers import LOOPBACK, Server, free_ports, wait_for
from simulated_run import ANGLES, emit_run, frames

from bluesky_jit.archive import connect
from bluesky_jit.cli.simulated import SimulatedBeamline
from bluesky_jit.cli.watch import Watch
from bluesky_jit.intake.wire import DocumentPublisher
from bluesky_jit.results import results

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

SOON_S = 90.0
KEY = secrets.token_hex(16)


class Recording:
    """A session in a process of its own, whose Tiled server is not there yet."""

    def __init__(self, simulated: SimulatedBeamline, watch: Watch, publisher: DocumentPublisher) -> None:
        self._simulated = simulated
        self._publisher = publisher
        self._streams = frames(turns=1)
        self.watch = watch
        self.process = psutil.Process(simulated.child("serve")._process.pid)

    def run(self) -> str:
        """Send a run and wait for its last slices; return its uid."""
        uid = emit_run(self._publisher, self._streams)
        self.watch.wait_until_finished(uid, SOON_S)
        values = self.watch.values()
        assert (values["Projections"], values["FramesLost"]) == (ANGLES, 0)
        # A PV of its own, which may follow a moment later.
        wait_for(lambda: self.watch.image("XY:Raw")[1].get("RunUid") == uid, timeout_s=SOON_S, what="the slice")
        return uid

    def wait_for_message(self, text: str) -> None:
        wait_for(lambda: text in self.watch.values()["Message"], timeout_s=SOON_S, what=f"the message {text!r}")

    def wait_until_all_is_in_tiled(self) -> None:
        spill = self._simulated.directory / "spill"
        wait_for(lambda: not list(spill.glob("*/*/*.msgpack")), timeout_s=SOON_S, what="the records in Tiled")

    def last_slices(self, *uids: str) -> list[np.ndarray]:
        """Return the last XY slice of each run, as Tiled has it."""
        client = connect(self._simulated.settings.tiled)
        try:
            return [results(uid, client)["XY"]["raw"].values[-1] for uid in uids]
        finally:
            client.context.close()


@pytest.fixture(scope="module")
def tiled_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def start_tiled(tiled_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], None]]:
    """Start the Tiled server, which is there until the session has ended."""
    folder = str(tmp_path_factory.mktemp("tiled"))
    servers: list[Server] = []

    def start() -> None:
        options = ("--directory", folder, "--readable", folder, "--port", str(tiled_port))
        servers.append(Server("sim_devices.archive", *options, environment={"TILED_SINGLE_USER_API_KEY": KEY}))
        servers[0].wait_ready(SOON_S)

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def recording(
    start_tiled: Callable[[], None], tiled_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Recording]:
    settings = {
        "learn": {"enabled": False},
        "intake": {"queue_frames": 4096},
        "tiled": {"uri": f"http://{LOOPBACK}:{tiled_port}", "api_key": KEY},
    }
    folder = tmp_path_factory.mktemp("records")
    with ExitStack() as ending:
        simulated = ending.enter_context(SimulatedBeamline(folder, parts=(), settings=settings))
        simulated.serve().wait_until_ready(SOON_S)
        watch = ending.enter_context(Watch(simulated.settings))
        publisher = DocumentPublisher(simulated.settings.serve.publish_address)
        ending.callback(publisher.close)
        assert publisher.wait_for_listener(SOON_S)
        yield Recording(simulated, watch, publisher)


def test_a_full_disk_costs_records_and_no_slices(recording: Recording) -> None:
    limit = recording.process.rlimit(psutil.RLIMIT_FSIZE)
    # No file of the session can grow.
    recording.process.rlimit(psutil.RLIMIT_FSIZE, (0, limit[1]))
    try:
        recording.run()
        recording.wait_for_message("Tiled records of this run are left out: free some space")
    finally:
        recording.process.rlimit(psutil.RLIMIT_FSIZE, limit)


def test_what_was_recorded_while_tiled_was_away_is_there_when_it_is_back(
    start_tiled: Callable[[], None], recording: Recording
) -> None:
    uid = recording.run()
    recording.wait_for_message("does not take records")
    shown = recording.watch.image("XY:Raw")[0]
    start_tiled()
    recording.wait_until_all_is_in_tiled()
    later = recording.run()
    assert recording.watch.values()["Message"] == ""
    recording.wait_until_all_is_in_tiled()
    for slice_in_tiled in recording.last_slices(uid, later):
        # Slices that are brought up to date differ by rounding from those made anew.
        np.testing.assert_allclose(slice_in_tiled, shown, rtol=0, atol=1e-4 * np.abs(shown).max())
