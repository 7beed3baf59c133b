"""`bluesky-jit serve` beside a Kafka broker and with CURVE keys: runs from there, by both ways, without the broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from p4p.client.thread import Context
from servers import LOOPBACK, Server, free_ports, wait_for
from simulated_run import ANGLES, emit_run, frames

from bluesky_jit.intake.curve import make_keys
from bluesky_jit.intake.wire import DocumentPublisher

pytest.importorskip("confluent_kafka", reason="the extra `kafka` is not installed")
pytest.importorskip("msgpack_numpy", reason="the extra `kafka` is not installed")

from mock_kafka import MockKafka

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("ca_repeater"), pytest.mark.timeout(300)]

TOPIC = "bl.documents"
PREFIX = "JSK:"
SOON_S = 90.0
STREAMS = frames()


class Service:
    """A session in a process of its own that listens to Kafka, and its PVs."""

    def __init__(self, kafka: MockKafka, keys: Path) -> None:
        self.keys = keys
        ca, self.pva, self.publish, subscribe = free_ports(4)
        values = {
            "epics.prefix": PREFIX,
            "epics.ca_port": ca,
            "epics.pva_port": self.pva,
            "serve.publish_address": f"{LOOPBACK}:{self.publish}",
            "serve.subscribe_address": f"{LOOPBACK}:{subscribe}",
            "serve.curve_folder": keys,
            "serve.kafka_servers": kafka.servers,
            "serve.kafka_topics": TOPIC,
            "learn.enabled": "no",
            "intake.queue_frames": 4096,
        }
        options = [part for place, value in values.items() for part in ("--set", f"{place}={value}")]
        self.server = Server("bluesky_jit.cli", "serve", *options)
        self.server.wait_ready()
        conf = {"EPICS_PVA_NAME_SERVERS": f"{LOOPBACK}:{self.pva}", "EPICS_PVA_AUTO_ADDR_LIST": "NO"}
        self._pva = Context("pva", conf=conf, useenv=False, nt=False)

    def value(self, name: str) -> Any:
        found: Any = self._pva.get(PREFIX + name, timeout=20)
        return found["value"]

    def counts_of(self, uid: str) -> dict[str, Any]:
        """Return the counts of a run when it has ended."""
        wait_for(lambda: (self.value("RunUid"), self.value("ReconStatus")) == (uid, "idle"), timeout_s=SOON_S)
        return {name: self.value(name) for name in ("Darks", "Flats", "Projections", "FramesReceived", "FramesLost")}

    def publisher(self) -> DocumentPublisher:
        return DocumentPublisher(f"{LOOPBACK}:{self.publish}", curve_folder=str(self.keys))

    def stop(self) -> int:
        self._pva.close()
        return self.server.stop()


ALL = {"Darks": 5, "Flats": 20, "Projections": ANGLES, "FramesReceived": ANGLES + 25, "FramesLost": 0}


@pytest.fixture(scope="module")
def kafka() -> MockKafka:
    kafka = MockKafka()
    kafka.make_topic(TOPIC)
    return kafka


@pytest.fixture(scope="module")
def service(kafka: MockKafka, ca_repeater: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    keys = tmp_path_factory.mktemp("keys")
    make_keys(keys)
    service = Service(kafka, keys)
    taken = f"documents are taken from Kafka topics {TOPIC}"
    wait_for(lambda: any(taken in line for line in service.server.output), timeout_s=SOON_S, what=taken)

    def is_heard() -> bool:
        # Where a partition ends is asked for just after it is assigned.
        kafka.publish(TOPIC, "stop", {"uid": "a probe", "run_start": "of no run"})
        return "joined a run after its start" in service.value("Message")

    wait_for(is_heard, timeout_s=SOON_S, what="a first document from Kafka")
    yield service
    assert service.stop() == 0
    assert "Traceback" not in "".join(service.server.output)


def test_it_says_that_it_hears_those_with_keys_and_kafka(service: Service, kafka: MockKafka) -> None:
    [ready] = [line for line in service.server.output if line.startswith("ready: ")]
    heard = f"{LOOPBACK}:{service.publish} of those with keys of {service.keys} and from Kafka at {kafka.servers}"
    assert f"documents at {heard}, PVs {PREFIX}*" in ready


def test_a_run_from_kafka_is_reconstructed(service: Service, kafka: MockKafka) -> None:
    uid = emit_run(lambda name, document: kafka.publish(TOPIC, name, document), STREAMS)
    assert service.counts_of(uid) == ALL
    assert service.value("UpdateNumber") > 0
    assert service.value("Message") == ""


def test_a_run_that_comes_over_0mq_too_counts_once(service: Service, kafka: MockKafka) -> None:
    publisher = service.publisher()
    try:
        assert publisher.wait_for_listener(SOON_S)

        def emit(name: str, document: dict[str, Any]) -> None:
            publisher(name, document)
            kafka.publish(TOPIC, name, document)

        uid = emit_run(emit, STREAMS)
        assert service.counts_of(uid) == ALL
        assert service.value("Message") == ""
    finally:
        publisher.close()


def test_without_its_broker_the_session_goes_on(service: Service, kafka: MockKafka) -> None:
    publisher = service.publisher()
    kafka.set_down()
    try:
        wait_for(
            lambda: "does not answer" in service.value("Message"), timeout_s=SOON_S, what="a word about the broker"
        )
        assert publisher.wait_for_listener(SOON_S)
        assert service.counts_of(emit_run(publisher, STREAMS)) == ALL
    finally:
        publisher.close()
        kafka.set_up()
    back = f"Kafka at {kafka.servers} answers again"
    wait_for(lambda: any(back in line for line in service.server.output), timeout_s=SOON_S, what=back)
