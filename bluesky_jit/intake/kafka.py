"""Documents from Kafka, as bluesky-kafka's Publisher sends them, without its way of running code that comes along.

bluesky_kafka's own consumer, and msgpack in the whole process once it is imported, unpickle arrays of objects: whoever
may publish could run code here. So its messages are read with the client that it uses itself, and without pickle.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from event_model import DocumentNames

from bluesky_jit.intake.plain_msgpack import unpack
from bluesky_jit.messages import Problem
from bluesky_jit.settings_sections import ServeSettings

logger = logging.getLogger(__name__)

POLL_S = 0.2
STATISTICS_MS = 1000
"""How often librdkafka says which brokers it is connected to."""
NEW_TOPICS_MS = 10_000
"""How soon a topic that did not exist is noticed; librdkafka itself would take five minutes."""
GONE_MS = 10_000
"""After how long a broker takes a service that was killed for gone, and gives its topics to the next of its group."""
COMMIT_S = 5.0
"""How often it is noted how far a named group has read: librdkafka's own interval."""


class KafkaSource:
    """Take documents from Kafka topics and hand them to `receive`.

    A broker that is away is reported once, and once when it is back; librdkafka looks for it all the time.
    """

    def __init__(
        self,
        settings: ServeSettings,
        receive: Callable[[str, dict[str, Any]], None],
        report: Callable[[Problem], None],
    ) -> None:
        self._servers = settings.kafka_servers
        self._topics = [topic.strip() for topic in settings.kafka_topics]
        self._commits = bool(settings.kafka_group)
        self._receive = receive
        self._report = report
        self._stopping = threading.Event()
        self._away = False
        self._noted = True
        self._noted_s = time.monotonic()
        self._kafka = _client()
        configuration = {
            "group.id": settings.kafka_group or f"bluesky-jit-{uuid.uuid4()}",
            # A run that has begun cannot be reconstructed, and what is old is not live.
            "auto.offset.reset": "latest",
            "topic.metadata.refresh.interval.ms": NEW_TOPICS_MS,
            "session.timeout.ms": GONE_MS,
            # Its own lines go to the terminal, one for each attempt to connect.
            "log_level": 0,
            **read_configuration(settings.kafka_config),
            "bootstrap.servers": self._servers,
            # By itself librdkafka commits when it is closed, too, and then waits for a broker that is away.
            "enable.auto.commit": False,
            "statistics.interval.ms": STATISTICS_MS,
            "error_cb": self._failed,
            "stats_cb": self._heard,
        }
        try:
            self._consumer = self._kafka.Consumer(configuration)
            self._consumer.subscribe(self._topics, on_assign=self._assigned)
        except (self._kafka.KafkaException, TypeError) as error:
            raise ValueError(
                f"Kafka at {self._servers} cannot be used ({_words(error)}): check serve.kafka_servers, "
                "serve.kafka_topics and the file of serve.kafka_config"
            ) from error

    def loop(self) -> None:
        """Hand on documents until `stop`."""
        while not self._stopping.is_set():
            message = self._consumer.poll(POLL_S)
            if message is not None:
                self._take(message)
                self._noted = False
            self._note_place()

    def stop(self) -> None:
        """Ask the loop to end."""
        self._stopping.set()

    def close(self) -> None:
        """Leave the brokers; after the loop has ended."""
        self._consumer.close()

    def _take(self, message: Any) -> None:
        error = message.error()
        if error is not None:
            self._refused(error)
            return
        data = message.value() or b""
        try:
            name, document = read_message(data)
        except ValueError as reason:
            logger.warning(
                "a Kafka message of %d bytes in %s is no document (%s): it was left out",
                len(data),
                message.topic(),
                reason,
            )
            return
        self._receive(name, document)

    def _refused(self, error: Any) -> None:
        """Say what a broker answered instead of a document, such as that there is no such topic."""
        self._report(
            Problem(
                text=f"Kafka at {self._servers}: {error.str()}. Documents are taken as soon as there are any; check "
                "serve.kafka_topics, and the rights of serve.kafka_group"
            )
        )

    def _note_place(self) -> None:
        """Let a named group go on from here when it is started again."""
        if self._commits and not self._noted and time.monotonic() - self._noted_s > COMMIT_S:
            self._noted, self._noted_s = True, time.monotonic()
            self._consumer.commit(asynchronous=True)

    # ── called by librdkafka, within `poll` ──────────────────────────────────────────────────────────────────────────

    def _assigned(self, _: Any, partitions: list[Any]) -> None:
        topics = sorted({partition.topic for partition in partitions})
        logger.info("documents are taken from Kafka topics %s at %s", ", ".join(topics), self._servers)

    def _failed(self, error: Any) -> None:
        all_down = error.code() == self._kafka.KafkaError._ALL_BROKERS_DOWN
        # That one broker of several is away is librdkafka's business.
        if not (all_down or error.fatal()) or self._away:
            return
        self._away = True
        self._report(
            Problem(
                text=f"Kafka at {self._servers} does not answer ({error.str()}): no documents come from there until it "
                "does; check serve.kafka_servers, and the file of serve.kafka_config",
                severity="MAJOR",
                lasts="Kafka",
            )
        )

    def _heard(self, statistics: str) -> None:
        states = [broker["state"] for broker in json.loads(statistics)["brokers"].values()]
        if self._away and "UP" in states:
            self._away = False
            text = f"Kafka at {self._servers} answers again"
            self._report(Problem(text=text, severity="NO_ALARM", lasts="Kafka"))


def _client() -> Any:
    try:
        # By name: it is an extra.
        return import_module("confluent_kafka")
    except ImportError as error:
        raise ValueError(
            f"serve.kafka_servers is set, and Kafka's client cannot be loaded ({error}): "
            "pip install 'bluesky-jit[kafka]', or leave the setting empty"
        ) from error


def missing_topics(settings: ServeSettings, *, timeout_s: float) -> list[str]:
    """Return the topics of the settings that the brokers do not have; raise OSError when no broker answers."""
    kafka = _client()
    configuration = {
        "log_level": 0,
        **read_configuration(settings.kafka_config),
        "bootstrap.servers": settings.kafka_servers,
    }
    try:
        # A producer that sends nothing; a consumer would have to say of which group it is.
        found = kafka.Producer(configuration).list_topics(timeout=timeout_s).topics
    except (kafka.KafkaException, TypeError) as error:
        raise OSError(
            f"Kafka at {settings.kafka_servers} does not answer ({_words(error)}): check serve.kafka_servers and the "
            "file of serve.kafka_config"
        ) from error
    return [topic.strip() for topic in settings.kafka_topics if topic.strip() not in found]


def _words(error: Exception) -> str:
    """Return what librdkafka says, without its codes."""
    reason: Any = error.args[0] if error.args else error
    return str(reason.str() if hasattr(reason, "str") else reason)


def read_configuration(path: str) -> dict[str, Any]:
    """Return librdkafka's options from a TOML file (`security.protocol = "SASL_SSL"`); raise for one that is none."""
    if not path:
        return {}
    try:
        return dict(_flat(tomllib.loads(Path(path).read_text())))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"serve.kafka_config is {path}, which cannot be read: {error}") from error


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def read_message(data: bytes) -> tuple[str, dict[str, Any]]:
    """Return the name and the document in what bluesky-kafka packs; raise ValueError for anything else."""
    try:
        name, document = unpack(data, _decode)
        kind = DocumentNames[name]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(str(error) or type(error).__name__) from error
    if not isinstance(document, dict):
        raise ValueError(f"a {kind.name} is a table, not {type(document).__name__}")
    return kind.name, document


def _decode(value: dict[Any, Any]) -> Any:
    """Return the array or number that msgpack-numpy has packed as a table, or the table."""
    if b"nd" not in value:
        return complex(value[b"data"]) if b"complex" in value else value
    kind = value.get(b"kind", b"")
    if kind == b"O":
        raise ValueError("an array of objects is not unpickled: publish numbers or text")
    fields = value[b"type"]
    dtype = np.dtype([tuple(field) for field in fields] if kind == b"V" else fields)
    array = np.frombuffer(value[b"data"], dtype=dtype)
    return array.reshape(value[b"shape"]) if value[b"nd"] else array[0].item()
