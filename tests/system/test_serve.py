"""`bluesky-jit serve`, as a beamline runs it: documents in over 0MQ, slices out as PVs, clear words for any fault."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq
from caproto.sync import client as ca
from p4p.client.thread import Context
from servers import JIT_CA_PORT, LOOPBACK, Server, free_ports, wait_for
from simulated_run import ANGLES, GEOMETRY, PHANTOM, emit_run, frames

from bluesky_jit.intake.wire import DocumentPublisher, serialise
from bluesky_jit.tomo.grid import Grid

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("ca_repeater"), pytest.mark.timeout(400)]

LISTENS_S = 60.0
KINDS_OF_GARBAGE = 3
SOON_S = 90.0


@dataclass(frozen=True)
class Ports:
    """Where a session is."""

    prefix: str
    ca: int
    pva: int
    publish: int
    subscribe: int

    @property
    def options(self) -> list[str]:
        values = {
            "epics.prefix": self.prefix,
            "epics.ca_port": self.ca,
            "epics.pva_port": self.pva,
            "serve.publish_address": f"{LOOPBACK}:{self.publish}",
            "serve.subscribe_address": f"{LOOPBACK}:{self.subscribe}",
            "learn.enabled": "no",
            "intake.queue_frames": 4096,
        }
        return [part for place, value in values.items() for part in ("--set", f"{place}={value}")]

    @classmethod
    def free(cls, prefix: str, ca: int = JIT_CA_PORT) -> Ports:
        pva, publish, subscribe = free_ports(3)
        return cls(prefix=prefix, ca=ca, pva=pva, publish=publish, subscribe=subscribe)


class Session:
    """A session in a process of its own, and its PVs as clients see them."""

    def __init__(self, ports: Ports, *options: str) -> None:
        self.ports = ports
        self.server = Server("bluesky_jit.cli", "serve", *ports.options, *options)
        self.ready = self.server.wait_ready()
        conf = {"EPICS_PVA_NAME_SERVERS": f"{LOOPBACK}:{ports.pva}", "EPICS_PVA_AUTO_ADDR_LIST": "NO"}
        self._pva = Context("pva", conf=conf, useenv=False, nt=False)

    def stop(self) -> int:
        self._pva.close()
        return self.server.stop()

    @property
    def output(self) -> str:
        return "".join(self.server.output)

    @contextmanager
    def publisher(self) -> Iterator[DocumentPublisher]:
        publisher = DocumentPublisher(f"{LOOPBACK}:{self.ports.publish}")
        try:
            assert publisher.wait_for_listener(LISTENS_S)
            yield publisher
        finally:
            publisher.close()

    def ca(self, name: str) -> Any:
        return ca.read(self.ports.prefix + name, repeater=False, timeout=20).data

    def text(self, name: str) -> str:
        """Return what a PV says: a string, the word of an enum, or a long string."""
        data = self.ca(name)
        if len(data) and isinstance(data[0], bytes):
            return data[0].decode()
        return bytes(bytearray(data)).decode("latin-1")

    def write(self, name: str, value: Any) -> None:
        ca.write(self.ports.prefix + name, value, notify=True, repeater=False, timeout=20)

    def value(self, name: str) -> Any:
        """Return a scalar by pvAccess."""
        value: Any = self._pva.get(self.ports.prefix + name, timeout=20)
        return value["value"]

    def image(self, name: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Return an image (ny, nx) by pvAccess, with its attributes."""
        value: Any = self._pva.get(f"{self.ports.prefix}{name}:Image", timeout=20)
        sizes = [int(dimension["size"]) for dimension in value["dimension"]]
        return np.asarray(value["value"]).reshape(sizes[::-1]), {a["name"]: a["value"] for a in value["attribute"]}

    def wait_until_finished(self, uid: str) -> None:
        wait_for(
            lambda: self.text("RunUid") == uid[:39] and self.text("ReconStatus") == "idle",
            timeout_s=SOON_S,
            what=f"the end of run {uid}",
        )


@pytest.fixture(scope="module")
def session(ca_repeater: None) -> Iterator[Session]:
    session = Session(Ports.free("JSV:"))
    yield session
    session.stop()


@pytest.fixture(scope="module")
def streams() -> dict[str, np.ndarray]:
    return frames()


def test_a_published_run_gives_slices_on_ca_and_pva(session: Session, streams: dict) -> None:
    with session.publisher() as publisher:
        uid = emit_run(publisher, streams)
        session.wait_until_finished(uid)
    assert [int(session.ca(name)[0]) for name in ("Projections", "Darks", "Flats", "FramesLost")] == [ANGLES, 5, 20, 0]
    image, attributes = session.image("XY:Raw")
    assert attributes["RunUid"] == uid
    wait_for(lambda: session.ca("XY:Raw:UniqueId_RBV")[0] == attributes["Update"])
    ny, nx = (int(session.ca(f"XY:Raw:ArraySize{axis}_RBV")[0]) for axis in (1, 0))
    assert np.asarray(session.ca("XY:Raw:ArrayData"))[: ny * nx].reshape(ny, nx) == pytest.approx(image)
    grid = Grid(**json.loads(attributes["Grid"]))
    truth = PHANTOM.attenuation(grid, 0.0, oversample=2)[0]
    inside = np.hypot(grid.points()[0, ..., 0], grid.points()[0, ..., 1]) < 0.8 * GEOMETRY.radius_mm
    assert np.mean(image[inside]) == pytest.approx(np.mean(truth[inside]), rel=0.06)


def test_the_log_says_once_which_kernel_runs_have(session: Session, streams: dict) -> None:
    with session.publisher() as publisher:
        session.wait_until_finished(emit_run(publisher, streams))
    assert session.output.count("INFO backprojection kernel: ") == 1
    assert "(chosen automatically" in session.output


def test_a_slice_is_moved_by_a_put(session: Session, streams: dict) -> None:
    with session.publisher() as publisher:
        session.wait_until_finished(emit_run(publisher, streams))
    before, _ = session.image("XY:Raw")
    session.write("XY:Position", 6.0)
    wait_for(lambda: json.loads(session.image("XY:Raw")[1]["Grid"])["origin"][2] == 6.0, what="the slice at 6 mm")
    assert not np.array_equal(session.image("XY:Raw")[0], before)
    assert session.ca("XY:Position")[0] == 6.0
    session.write("XY:Position", 0.0)
    wait_for(lambda: np.allclose(session.image("XY:Raw")[0], before, atol=1e-6), what="the first slice again")


def test_what_is_no_document_is_left_out_and_the_next_run_works(session: Session, streams: dict) -> None:
    garbage = [
        b"",
        b"garbage",
        b" start \xc1",
        b" \xff\xfe " + msgpack.packb({}),
        b" nonsense " + msgpack.packb({}),
        b" event " + msgpack.packb({"__array__": "<f8", "shape": [3], "data": b"1"}),
        b" start " + msgpack.packb(3),
        # Documents in form, but not in content.
        b" start " + msgpack.packb({}),
        b" event " + msgpack.packb({"descriptor": ["unhashable"]}),
        b" stop " + msgpack.packb({"run_start": "never seen"}),
    ]
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        socket.setsockopt(zmq.LINGER, 1000)
        with socket.get_monitor_socket() as monitor:
            socket.connect(f"tcp://{LOOPBACK}:{session.ports.publish}")
            monitor.recv_multipart()

            def is_heard() -> bool:
                for message in garbage:
                    socket.send(message)
                return session.output.count("is no document") >= KINDS_OF_GARBAGE

            wait_for(is_heard, what="a line in the log for each kind")
            socket.disable_monitor()
    with session.publisher() as publisher:
        session.wait_until_finished(emit_run(publisher, streams))
    assert session.text("Message") == ""
    assert session.image("XY:Raw")[0].size > 0


def test_a_second_session_at_the_same_place_says_what_is_wrong(session: Session) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bluesky_jit.cli", "serve", *session.ports.options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "ready" not in done.stdout
    [line] = done.stderr.splitlines()
    assert f"cannot listen on {LOOPBACK}:{session.ports.publish}" in line
    assert "is another `bluesky-jit serve` running?" in line
    assert "serve.publish_address" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "learn.enabled=yes", "--set", "learn.preset=nosuch"], "learn.preset is 'nosuch'"),
        (["--set", "slices.updates_per_s=0"], "slices.updates_per_s is 0.0"),
        (["--set", "epics.interface=nowhere"], "--set: epics.interface is 'nowhere': give the IPv4 address"),
        (["--set", "serve.publish_address=nowhere"], "--set: serve.publish_address is 'nowhere': give HOST:PORT"),
        (["--set", "serve.publish_address=192.0.2.1:5577x"], "serve.publish_address is '192.0.2.1:5577x'"),
        (["--set", "serve.publish_address=0.0.0.0:5577"], "is 0.0.0.0:5577, which other machines reach"),
        (["--set", "serve.curve_folder=/nowhere"], "make keys with `bluesky-jit keys FOLDER`"),
        (["--settings", "none.toml"], "settings file none.toml does not exist"),
    ],
)
def test_settings_that_cannot_work_are_one_line(options: list[str], words: str, tmp_path: Path) -> None:
    ports = Ports.free("JSW:", ca=free_ports(1)[0])
    done = subprocess.run(
        [sys.executable, "-m", "bluesky_jit.cli", "serve", *ports.options, *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "ready" not in done.stdout
    # At most the log's own lines come before it, such as the kernel's.
    *before, line = done.stderr.splitlines()
    assert all(" INFO " in told for told in before)
    assert line.startswith("bluesky-jit: ")
    assert words in line


def test_it_says_where_the_pvs_are_when_their_ports_are_taken(ca_repeater: None) -> None:
    ports = Ports.free("JSP:", ca=free_ports(1)[0])
    with socket.create_server((LOOPBACK, ports.ca)), socket.create_server((LOOPBACK, ports.pva)):
        session = Session(ports)
        try:
            found = re.fullmatch(r"ready: .* PVs JSP:\* on ports (\d+) \(CA\) and (\d+) \(PVA\)", session.ready)
            assert found is not None, session.ready
            ca_port, pva_port = map(int, found.groups())
            assert ca_port != ports.ca
            assert pva_port != ports.pva
            for port in (ca_port, pva_port):
                socket.create_connection((LOOPBACK, port), timeout=20).close()
        finally:
            session.stop()


def test_it_says_when_there_are_no_pvs(ca_repeater: None) -> None:
    session = Session(Ports.free("JSQ:", ca=free_ports(1)[0]), "--set", "epics.enabled=no")
    try:
        assert session.ready.endswith("no PVs (epics.enabled is off)")
    finally:
        session.stop()


def test_a_run_that_began_before_the_session_is_sent_again(streams: dict, ca_repeater: None) -> None:
    ports = Ports.free("JSX:", ca=free_ports(1)[0])
    publisher = DocumentPublisher(f"{LOOPBACK}:{ports.publish}")
    documents = recorded(streams)
    uid = documents[0][1]["uid"]
    try:
        assert not publisher.wait_for_listener(0.05)
        for name, document in documents[:-2]:
            publisher(name, document)
        session = Session(ports)
        assert publisher.wait_for_listener(LISTENS_S)
        for name, document in documents[-2:]:
            publisher(name, document)
        wait_for(lambda: (session.value("RunUid"), session.value("ReconStatus")) == (uid, "idle"), timeout_s=SOON_S)
        assert [session.value(name) for name in ("Projections", "Darks", "Flats", "FramesLost")] == [ANGLES, 5, 20, 0]
        assert session.value("Message") == ""
        check_that_others_documents_are_missed(session, streams)
        uid = emit_run(publisher, streams)
        wait_for(lambda: (session.value("RunUid"), session.value("ReconStatus")) == (uid, "idle"), timeout_s=SOON_S)
        assert session.value("Message") == ""
        session.server.process.send_signal(signal.SIGINT)
        session.server.process.wait(SOON_S)
        assert session.stop() == 0
    finally:
        publisher.close()


def recorded(streams: dict) -> list[tuple[str, Any]]:
    """Return the documents of a run."""
    documents: list[tuple[str, Any]] = []
    emit_run(lambda name, document: documents.append((name, document)), streams)
    return documents


def check_that_others_documents_are_missed(session: Session, streams: dict) -> None:
    """Send the end of a run as bluesky's own Publisher would, which sends nothing again."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        socket.setsockopt(zmq.LINGER, 1000)
        socket.connect(f"tcp://{LOOPBACK}:{session.ports.publish}")
        assert socket.recv() == b"\x01"
        for name, document in recorded(streams)[-2:]:
            socket.send(b" ".join([b"", name.encode(), serialise(document)]))
        told = "joined a run after its start, and there is no Tiled (tiled.uri) to ask"
        wait_for(lambda: told in session.value("Message"), timeout_s=SOON_S, what="a message")


def test_it_ends_quietly_when_asked_to_twice_in_mid_run(streams: dict, ca_repeater: None) -> None:
    session = Session(Ports.free("JSY:", ca=free_ports(1)[0]), "--set", "learn.enabled=yes")
    ended: list[int] = []

    def end(number: int) -> None:
        if number == ANGLES // 2:
            wait_for(lambda: session.value("Projections") > 10, timeout_s=SOON_S)
            session.server.process.send_signal(signal.SIGINT)
            session.server.process.send_signal(signal.SIGTERM)
            session.server.process.wait(SOON_S)
            ended.append(session.stop())

    with session.publisher() as publisher:
        emit_run(publisher, streams, between=end)
    assert ended == [0]
    assert "Traceback" not in session.output
    assert session.output.splitlines()[-1] == "ended"


def test_it_ends_quietly_when_asked_to_twice_while_it_starts(ca_repeater: None) -> None:
    ports = Ports.free("JSZ:", ca=free_ports(1)[0])
    server = Server("bluesky_jit.cli", "serve", *ports.options)

    def listens() -> bool:
        with socket.socket() as client:
            return client.connect_ex((LOOPBACK, ports.publish)) == 0

    wait_for(listens, timeout_s=SOON_S, what="its first sign")
    server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(SOON_S) == 0
    server.stop()
    assert "".join(server.output).splitlines()[-1] == "ended"
    assert not any("ready" in line or "Traceback" in line for line in server.output)
