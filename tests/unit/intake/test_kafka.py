"""Documents from Kafka, by librdkafka's mock cluster: what Publisher sends arrives; nothing that comes runs code."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import wait_for

from bluesky_jit.intake.kafka import KafkaSource, read_configuration, read_message
from bluesky_jit.intake.wire import deserialise, serialise
from bluesky_jit.messages import Problem
from bluesky_jit.session.kafka_stage import beside_kafka
from bluesky_jit.settings import load_settings
from bluesky_jit.settings_sections import ServeSettings

pytest.importorskip("confluent_kafka", reason="the extra `kafka` is not installed")
pytest.importorskip("msgpack_numpy", reason="the extra `kafka` is not installed")

from mock_kafka import MockKafka, packed

DOCUMENT = {
    "uid": "u",
    "frames": np.arange(12, dtype=np.uint16).reshape(3, 4),
    "number": np.float64(1.5),
    "whole": np.int64(7),
    "turns": 2 + 1j,
    "fields": np.array([(1, 2.0)], dtype=[("a", "<i4"), ("b", "<f8")]),
    "names": np.array(["one", "two"]),
    "plain": {"list": [1, None, "text", b"bytes"]},
}
PUBLISHER = """
import sys
import numpy as np
from bluesky_kafka import Publisher
publisher = Publisher(topic=sys.argv[2], bootstrap_servers=sys.argv[1], key="k", flush_on_stop_doc=True)
publisher("start", {"uid": "from the publisher", "a": np.arange(6).reshape(2, 3), "n": np.int64(5)})
publisher("stop", {"uid": "its end", "run_start": "from the publisher"})
"""


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_document_comes_through_with_its_arrays_and_numbers() -> None:
    name, found = read_message(packed(["event", DOCUMENT]))
    assert name == "event"
    assert found.keys() == DOCUMENT.keys()
    for key in ("frames", "fields", "names"):
        assert found[key].dtype == DOCUMENT[key].dtype
        assert np.array_equal(found[key], DOCUMENT[key])
    for key in ("uid", "number", "whole", "turns", "plain"):
        assert found[key] == DOCUMENT[key]


class Bomb:
    def __reduce__(self) -> Any:
        return os.putenv, ("BOMB", "went off")


def test_an_array_of_objects_is_refused_and_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    went_off: list[Any] = []
    monkeypatch.setattr(pickle, "loads", went_off.append)
    bomb = packed(["start", {"uid": np.array([Bomb()], dtype=object)}])
    with pytest.raises(ValueError, match="an array of objects is not unpickled"):
        read_message(bomb)
    # The same without the mark that it holds objects.
    table = {b"nd": True, b"type": "|O", b"shape": [1], b"data": pickle.dumps(Bomb())}
    with pytest.raises(ValueError):
        read_message(packed(["start", {"uid": table}]))
    assert not went_off


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        packed(["start", {"uid": "u"}])[:-1],
        packed(["start", {"uid": "u"}]) + b"\x00",
        packed(["nonsense", {}]),
        packed(["start"]),
        packed(["start", 3]),
        packed([["start"], {}]),
        packed(["start", {"a": {b"nd": True, b"type": "<f8", b"shape": [3], b"data": b"1"}}]),
        packed(["start", {"a": {b"nd": True}}]),
        b"\x91" * 5000,
    ],
    ids=lambda data: str(data[:12]),
)
def test_what_is_no_document_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_message(data)


def test_documents_over_0mq_are_packed_and_read_alike_beside_bluesky_kafka() -> None:
    """bluesky_kafka replaces msgpack's classes in the whole process, with some that unpickle."""
    code = (
        "import msgpack_numpy; msgpack_numpy.patch(); import numpy as np\n"
        "from bluesky_jit.intake.wire import serialise; import sys\n"
        "sys.stdout.buffer.write(serialise({'a': np.arange(3), 'n': np.float32(0.5)}))"
    )
    patched = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert patched == serialise({"a": np.arange(3), "n": np.float32(0.5)})
    assert np.array_equal(deserialise(patched)["a"], np.arange(3))


# ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_options_of_the_client_are_read_from_toml(tmp_path: Path) -> None:
    file = tmp_path / "kafka.toml"
    file.write_text('security.protocol = "SASL_SSL"\nsasl.password = "x"\n"ssl.ca.location" = "/ca"\nretries = 3\n')
    assert read_configuration(str(file)) == {
        "security.protocol": "SASL_SSL",
        "sasl.password": "x",
        "ssl.ca.location": "/ca",
        "retries": 3,
    }
    assert read_configuration("") == {}


@pytest.mark.parametrize(("text", "words"), [(None, "No such file"), ("a = ", "Invalid value")])
def test_a_file_of_options_that_cannot_be_read_is_named(tmp_path: Path, text: str | None, words: str) -> None:
    file = tmp_path / "kafka.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=rf"serve\.kafka_config is .*kafka\.toml, which cannot be read: .*{words}"):
        read_configuration(str(file))


def test_an_option_that_kafka_does_not_know_is_named(tmp_path: Path) -> None:
    file = tmp_path / "kafka.toml"
    file.write_text('securty.protocol = "SSL"\n')
    settings = ServeSettings(kafka_servers="127.0.0.1:1", kafka_topics=("a",), kafka_config=str(file))
    with pytest.raises(ValueError, match=r'cannot be used \(No such configuration property: "securty\.protocol"\)'):
        KafkaSource(settings, lambda *_: None, lambda _: None)


def test_servers_and_topics_are_given_together() -> None:
    with pytest.raises(ValueError, match=r"serve\.kafka_topics \[\]: give both"):
        load_settings(environment={"BLUESKY_JIT_SERVE__KAFKA_SERVERS": "h:9092"})
    settings = load_settings(environment={}, serve={"kafka_servers": "h:9092", "kafka_topics": "a, b"})
    assert [topic.strip() for topic in settings.serve.kafka_topics] == ["a", "b"]


# ── the broker ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Heard:
    """What a session would have received and reported."""

    documents: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    at_first: list[str] = field(default_factory=list)
    """What was heard until it was sure that anything is."""

    def receive(self, name: str, document: dict[str, Any]) -> None:
        self.documents.append((name, document))

    @property
    def uids(self) -> list[str]:
        return [document["uid"] for _, document in self.documents]

    @property
    def texts(self) -> list[str]:
        return [problem.text for problem in self.problems]


@contextmanager
def listening(kafka: MockKafka, topic: str, *, group: str = "") -> Iterator[Heard]:
    """Listen to a topic; what is published within is heard."""
    heard = Heard()
    settings = ServeSettings(kafka_servers=kafka.servers, kafka_topics=(topic,), kafka_group=group)
    with beside_kafka(settings, heard.receive, heard.problems.append):

        def is_heard() -> bool:
            kafka.publish(topic, "start", {"uid": "probe"})
            return bool(heard.documents)

        wait_for(is_heard, what="a first document from Kafka")
        # All probes have come when what was sent after them has.
        kafka.publish(topic, "start", {"uid": "last probe"})
        wait_for(lambda: "last probe" in heard.uids)
        heard.at_first = heard.uids
        heard.documents.clear()
        yield heard


@pytest.fixture(scope="module")
def kafka() -> MockKafka:
    kafka = MockKafka()
    for topic in ("bl.documents", "bl.group", "bl.away"):
        kafka.make_topic(topic)
    return kafka


def test_documents_of_a_topic_are_heard_from_now_on(kafka: MockKafka, caplog: pytest.LogCaptureFixture) -> None:
    kafka.publish("bl.documents", "start", {"uid": "long before"})
    with caplog.at_level(logging.INFO, "bluesky_jit.intake.kafka"), listening(kafka, "bl.documents") as heard:
        for name in ("start", "descriptor", "stop"):
            kafka.publish("bl.documents", name, {"uid": name, "a": np.arange(4)})
        kafka.send("bl.documents", b"no document")
        # What people's consoles send.
        subprocess.run([sys.executable, "-W", "ignore", "-c", PUBLISHER, kafka.servers, "bl.documents"], check=True)
        wait_for(lambda: {"stop", "its end"} <= set(heard.uids), what="the documents of both")
    assert "long before" not in heard.at_first
    # Each sends to a partition of its own: there is no order between the two.
    named = [(name, document["uid"]) for name, document in heard.documents]
    theirs = [("start", "from the publisher"), ("stop", "its end")]
    assert [pair for pair in named if pair in theirs] == theirs
    assert [pair for pair in named if pair not in theirs] == [(name, name) for name in ("start", "descriptor", "stop")]
    published = next(document for _, document in heard.documents if document["uid"] == "from the publisher")
    assert np.array_equal(published["a"], np.arange(6).reshape(2, 3))
    assert published["n"] == 5
    assert heard.problems == []
    records = [record.getMessage() for record in caplog.records if record.name == "bluesky_jit.intake.kafka"]
    assert f"documents are taken from Kafka topics bl.documents at {kafka.servers}" in records
    assert sum("is no document" in record for record in records) == 1


def test_a_named_group_has_its_place_noted_to_go_on_from(kafka: MockKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bluesky_jit.intake.kafka.COMMIT_S", 0.0)
    with listening(kafka, "bl.group", group="mine") as heard:
        kafka.publish("bl.group", "start", {"uid": "heard"})
        wait_for(lambda: "heard" in heard.uids)
        wait_for(lambda: kafka.place_of("mine", "bl.group") == kafka.end_of("bl.group"), what="the group's place")


def test_a_broker_that_goes_away_is_told_once_and_heard_again(kafka: MockKafka) -> None:
    with listening(kafka, "bl.away") as heard:
        kafka.set_down()
        try:
            wait_for(lambda: heard.problems, what="a word about the broker")
        finally:
            kafka.set_up()
        wait_for(lambda: len(heard.problems) > 1, what="a word that it is back")
        kafka.publish("bl.away", "start", {"uid": "after"})
        wait_for(lambda: "after" in heard.uids, what="the next document")
    away, back = heard.problems
    assert f"Kafka at {kafka.servers} does not answer" in away.text
    assert away.severity == "MAJOR"
    assert back == Problem(text=f"Kafka at {kafka.servers} answers again", severity="NO_ALARM", lasts="Kafka")
    assert heard.uids == ["after"]


def test_a_broker_that_stays_away_is_not_told_again() -> None:
    from confluent_kafka import KafkaError

    heard = Heard()
    source = KafkaSource(
        ServeSettings(kafka_servers="127.0.0.1:1", kafka_topics=("a",)), heard.receive, heard.problems.append
    )
    for code in (
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
    ):
        source._failed(KafkaError(code))
    source.close()
    [away] = heard.problems
    assert "Kafka at 127.0.0.1:1 does not answer" in away.text


def test_without_servers_there_is_no_kafka_at_all() -> None:
    def receive(name: str, document: dict[str, Any]) -> None: ...

    with beside_kafka(ServeSettings(), receive, lambda _: None) as taken:
        assert taken is receive
