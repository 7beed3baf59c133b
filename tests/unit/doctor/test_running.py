"""The session's heartbeat, judged; and who takes documents, over real sockets."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from servers import LOOPBACK, free_ports

from bluesky_jit.doctor.channels import Reading
from bluesky_jit.doctor.finding import Finding
from bluesky_jit.doctor.running import brokers, documents, session
from bluesky_jit.intake.hub import DocumentHub
from bluesky_jit.intake.wire import DocumentPublisher
from bluesky_jit.settings import Settings, load_settings

NOW_S = 1_790_000_000.0


def heartbeat(age_s: float = 0.5, running: int = 1, state: str = "running", message: str = "") -> dict[str, Reading]:
    values = {"ServerRunning": running, "ReconStatus": state, "RunUid": "0123456789abcdef", "Message": message}
    return {
        f"JIT:{name}": Reading(text=str(value), value=value, time_s=NOW_S - age_s) for name, value in values.items()
    }


def judged(found: dict[str, Reading], **epics: Any) -> tuple[str, str]:
    ports = dict(zip(("ca_port", "pva_port"), free_ports(2), strict=True))
    result = session(load_settings(environment={}, epics=ports | epics), found, NOW_S)
    return result.verdict, result.text


def test_a_session_that_lives_is_fine() -> None:
    assert judged(heartbeat()) == ("fine", "JIT:* is served and lives: running, run 01234567")


def test_its_message_is_passed_on() -> None:
    verdict, text = judged(heartbeat(message="no darks came"))
    assert (verdict, "JIT:Message: no darks came" in text) == ("warning", True)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (heartbeat(running=0), "the session has failed"),
        (heartbeat(state="failed"), "the session has failed"),
        (heartbeat(age_s=60.0), "the heartbeat JIT:ServerRunning is 60 s old"),
    ],
)
def test_a_session_that_has_failed_or_hangs_is_a_problem(found: dict[str, Reading], words: str) -> None:
    verdict, text = judged(found)
    assert (verdict, words in text) == ("problem", True)


def test_free_ports_are_fine_and_taken_ones_are_told() -> None:
    assert judged({})[0] == "fine"
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        verdict, text = judged({}, ca_port=port)
    assert (verdict, f"something else has CA port {port}:" in text) == ("warning", True)


def test_without_pvs_there_is_a_warning() -> None:
    assert judged({}, enabled="no")[0] == "warning"


# ── documents ────────────────────────────────────────────────────────────────────────────────────────────────────────


def served(publish: int, subscribe: int) -> Settings:
    addresses = {"publish_address": f"{LOOPBACK}:{publish}", "subscribe_address": f"{LOOPBACK}:{subscribe}"}
    return load_settings(environment={}, serve=addresses)


def asked(settings: Settings, *, lives: bool = False) -> Finding:
    publisher = DocumentPublisher(settings.serve.publish_address)
    try:
        return documents(settings, publisher, lives=lives)
    finally:
        publisher.close(0.0)


@contextmanager
def listening(settings: Settings) -> Iterator[None]:
    """Take documents as `bluesky-jit serve` does."""
    ending, end = os.pipe()
    with DocumentHub(settings.serve) as hub:
        thread = threading.Thread(target=lambda: list(hub.documents(ending)))
        thread.start()
        try:
            yield
        finally:
            os.write(end, b"\0")
            thread.join()
    os.close(ending)
    os.close(end)


def test_documents_that_are_taken_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bluesky_jit.doctor.running.LISTENER_S", 30.0)
    settings = served(*free_ports(2))
    with listening(settings):
        assert asked(settings).verdict == "fine"


def test_nobody_who_listens_is_a_problem_unless_a_session_shows_its_pvs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bluesky_jit.doctor.running.LISTENER_S", 0.1)
    settings = served(*free_ports(2))
    assert (asked(settings).verdict, "start `bluesky-jit serve`" in asked(settings).text) == ("problem", True)
    assert asked(settings, lives=True).verdict == "fine"


def test_something_else_at_the_address_is_told_from_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bluesky_jit.doctor.running.LISTENER_S", 0.1)
    with socket.create_server((LOOPBACK, 0)) as other:
        found = asked(served(other.getsockname()[1], 1))
    assert (found.verdict, "listens at" in found.text and "takes no documents" in found.text) == ("problem", True)


def test_kafka_is_looked_at_where_it_is_used() -> None:
    assert brokers(load_settings(environment={})) == []


def test_kafka_without_its_topic_and_without_a_broker_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("confluent_kafka", reason="the extra `kafka` is not installed")
    from mock_kafka import MockKafka

    kafka = MockKafka()
    kafka.make_topic("bl")

    def found(servers: str, *topics: str) -> Finding:
        return brokers(load_settings(environment={}, serve={"kafka_servers": servers, "kafka_topics": topics}))[0]

    assert found(kafka.servers, "bl").verdict == "fine"
    assert (
        found(kafka.servers, "bl", "nosuch").text == f"{kafka.servers} has no topic nosuch: correct serve.kafka_topics"
    )
    monkeypatch.setattr("bluesky_jit.doctor.running.BROKER_S", 0.3)
    kafka.set_down()
    assert (found(kafka.servers, "bl").verdict, "does not answer" in found(kafka.servers, "bl").text) == (
        "problem",
        True,
    )
    kafka.set_up()
