"""Where documents come in: heard, passed on, kept while nobody is there, and refused without keys."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from servers import LOOPBACK, free_ports, wait_for

from bluesky_jit.intake.curve import make_keys, secure_client
from bluesky_jit.intake.hub import DocumentHub
from bluesky_jit.intake.wire import DocumentPublisher, read_document, serialise
from bluesky_jit.settings_sections import ServeSettings

LISTENS_S = 30.0


class Listening:
    """A hub whose documents are read by a thread of its own."""

    def __init__(self, settings: ServeSettings) -> None:
        self.heard: list[Any] = []
        self._hub = DocumentHub(settings)
        self._end, self._asking = os.pipe()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for name, document in self._hub.documents(self._end):
            self.heard.append((name, document.get("n", document.get("reason"))))

    def close(self) -> None:
        os.write(self._asking, b"!")
        self._thread.join()
        self._hub.close()
        os.close(self._end)
        os.close(self._asking)


@contextmanager
def listening(settings: ServeSettings) -> Iterator[Listening]:
    hub = Listening(settings)
    try:
        yield hub
    finally:
        hub.close()


@contextmanager
def publishing(settings: ServeSettings, **options: Any) -> Iterator[DocumentPublisher]:
    publisher = DocumentPublisher(settings.publish_address, curve_folder=settings.curve_folder, **options)
    try:
        yield publisher
    finally:
        publisher.close()


@pytest.fixture
def settings() -> ServeSettings:
    into, out = free_ports(2)
    return ServeSettings(publish_address=f"{LOOPBACK}:{into}", subscribe_address=f"{LOOPBACK}:{out}")


def send(publisher: DocumentPublisher, numbers: range) -> None:
    for n in numbers:
        publisher("event", {"n": n})


def events(numbers: range) -> list[tuple[str, int]]:
    return [("event", n) for n in numbers]


def test_documents_are_heard_in_order_and_passed_on(settings: ServeSettings) -> None:
    with listening(settings) as hub, publishing(settings) as publisher, zmq.Context() as context:
        with context.socket(zmq.SUB) as other:
            other.setsockopt(zmq.SUBSCRIBE, b"")
            other.connect(f"tcp://{settings.subscribe_address}")
            assert publisher.wait_for_listener(LISTENS_S)
            n = 0
            # The other one listens from some moment on.
            while not other.poll(10):
                publisher("event", {"n": n})
                n += 1
            name, document = read_document(other.recv())
            assert (name, document["n"] < n) == ("event", True)
        send(publisher, range(n, n + 100))
        wait_for(lambda: len(hub.heard) == n + 100)
        assert hub.heard == events(range(n + 100))


def test_two_hubs_at_one_address_are_refused_clearly(settings: ServeSettings) -> None:
    with listening(settings), pytest.raises(OSError, match="is another `bluesky-jit serve` running"):
        DocumentHub(settings)


def test_documents_wait_for_a_service_that_comes_back(settings: ServeSettings) -> None:
    with publishing(settings) as publisher:
        with listening(settings) as hub:
            assert publisher.wait_for_listener(LISTENS_S)
            send(publisher, range(10))
            wait_for(lambda: len(hub.heard) == 10)
        # More than the socket takes.
        send(publisher, range(10, 3000))
        with listening(settings) as hub:
            wait_for(lambda: len(hub.heard) == 2990)
            assert hub.heard == events(range(10, 3000))
        assert publisher.dropped == 0


def test_what_waits_is_bounded_and_what_is_left_out_is_counted(
    settings: ServeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    with publishing(settings, most_bytes=1_000_000) as publisher:
        with listening(settings):
            assert publisher.wait_for_listener(LISTENS_S)
        # The socket holds some, and less than what it leaves.
        send(publisher, range(500))
        assert publisher.wait_until_sent(LISTENS_S)
        send(publisher, range(500, 5000))
        assert 0 < publisher.dropped < 5000
        with listening(settings) as hub:
            wait_for(lambda: len(hub.heard) == 5000 - publisher.dropped)
            assert publisher.wait_until_sent(LISTENS_S)
    told = [record.getMessage() for record in caplog.records if record.name == "bluesky_jit.intake.wire"]
    assert len(told) == 2
    assert "more than 1 MB would wait" in told[0]
    assert f"{publisher.dropped} were left out" in told[1]


def test_a_document_that_is_too_large_is_left_out_alone(settings: ServeSettings) -> None:
    with listening(settings) as hub, publishing(settings, most_bytes=100_000) as publisher:
        assert publisher.wait_for_listener(LISTENS_S)
        publisher("event", {"n": 0, "data": {"image": np.zeros(100_000, np.uint8)}})
        publisher("event", {"n": 1})
        wait_for(lambda: hub.heard)
        assert hub.heard == [("event", 1)]
        assert publisher.dropped == 1


def test_a_document_that_cannot_be_sent_does_not_stop_the_next(settings: ServeSettings) -> None:
    with listening(settings) as hub, publishing(settings) as publisher:
        assert publisher.wait_for_listener(LISTENS_S)
        publisher("event", {"n": object()})
        publisher("event", {"n": 1})
        wait_for(lambda: hub.heard)
        assert hub.heard == [("event", 1)]


def test_runs_of_a_process_that_dies_are_ended(settings: ServeSettings) -> None:
    program = f"""
from bluesky_jit.intake.wire import DocumentPublisher
publisher = DocumentPublisher({settings.publish_address!r})
assert publisher.wait_for_listener(60)
for uid in "abc":
    publisher("start", {{"uid": uid, "n": uid}})
publisher("stop", {{"run_start": "b", "n": "b"}})
input()
"""
    with listening(settings) as hub:
        process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
        wait_for(lambda: len(hub.heard) == 4, what="its documents")
        process.kill()
        wait_for(lambda: len(hub.heard) == 6, what="the ends of its open runs")
        process.communicate()
    assert hub.heard[4:] == [("stop", "the RunEngine's process ended in the middle of it")] * 2


def test_rubbish_is_told_once_of_each_kind(settings: ServeSettings, caplog: pytest.LogCaptureFixture) -> None:
    rubbish = [b"", b"half a message", b" event " + serialise({"n": 1})[:-1], b" nonsense " + serialise({})]
    with listening(settings) as hub, zmq.Context() as context, context.socket(zmq.XPUB) as sender:
        sender.setsockopt(zmq.LINGER, 1000)
        sender.connect(f"tcp://{settings.publish_address}")
        assert sender.recv() == b"\x01"
        for _ in range(200):
            for message in rubbish:
                sender.send(message)
        sender.send(b" event " + serialise({"n": 7}))
        wait_for(lambda: hub.heard == [("event", 7)])
    told = [record.getMessage() for record in caplog.records if record.name == "bluesky_jit.intake.hub"]
    assert 1 < len(told) <= len(rubbish)
    assert all("is no document" in text for text in told)


def test_only_a_client_with_keys_is_heard(settings: ServeSettings, tmp_path: Path) -> None:
    make_keys(tmp_path / "keys")
    make_keys(tmp_path / "others")
    # Somebody who knows the service's public key, but is not known there.
    (tmp_path / "others" / "service.key").write_bytes((tmp_path / "keys" / "service.key").read_bytes())
    safe = ServeSettings(
        publish_address=settings.publish_address,
        subscribe_address=settings.subscribe_address,
        curve_folder=str(tmp_path / "keys"),
    )
    with listening(safe) as hub, zmq.Context() as context:
        strangers = [context.socket(zmq.XPUB) for _ in range(2)]
        secure_client(strangers[1], str(tmp_path / "others"))
        for stranger in strangers:
            stranger.setsockopt(zmq.LINGER, 0)
            stranger.connect(f"tcp://{safe.publish_address}")
        with publishing(safe) as publisher:
            assert publisher.wait_for_listener(LISTENS_S)
            for stranger in strangers:
                stranger.send(b" event " + serialise({"n": -1}))
            send(publisher, range(10))
            wait_for(lambda: len(hub.heard) == 10)
        assert hub.heard == events(range(10))
        # The service does not even tell them that it listens.
        assert not any(stranger.poll(0) for stranger in strangers)
        for stranger in strangers:
            stranger.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "0", "127.1", "192.0.2.1", "beamline.example", "localhost.example", "lo"])
@pytest.mark.parametrize("key", ["publish_address", "subscribe_address"])
def test_an_address_that_is_not_surely_this_machines_own_needs_keys(key: str, host: str) -> None:
    with pytest.raises(ValueError, match=rf"serve.{key} is {host}:5577, which other machines reach"):
        DocumentHub(replace(ServeSettings(), **{key: f"{host}:5577"}))


def test_an_address_that_is_in_use_and_one_that_is_elsewhere_have_remedies_of_their_own(
    settings: ServeSettings, tmp_path: Path
) -> None:
    with listening(settings), pytest.raises(OSError, match="is another `bluesky-jit serve` running") as caught:
        DocumentHub(settings)
    assert f"cannot listen on {settings.publish_address} (Address already in use)" in str(caught.value)
    assert "Set serve.publish_address to a free port" in str(caught.value)
    make_keys(tmp_path)
    # 192.0.2.0/24 is for examples: no machine has one of these.
    elsewhere = replace(settings, subscribe_address="192.0.2.1:5578", curve_folder=str(tmp_path))
    with pytest.raises(OSError, match=r"set serve.subscribe_address to an address of this machine") as caught:
        DocumentHub(elsewhere)
    assert "another" not in str(caught.value)


def test_a_publisher_says_what_an_address_is_like() -> None:
    for address in ("banana", "", "*:5577", "127.0.0.1:0"):
        with pytest.raises(ValueError, match=r"the address to publish to is .*: give HOST:PORT"):
            DocumentPublisher(address)


@pytest.fixture(autouse=True)
def quiet_authenticator(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("zmq.auth").setLevel(logging.ERROR)
