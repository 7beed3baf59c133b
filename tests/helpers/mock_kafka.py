"""librdkafka's own mock cluster: a Kafka broker inside this process, that can be taken away and brought back."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka
import msgpack_numpy

READY_S = 30.0
BROKER = 1


class MockKafka:
    """A broker on a loopback port; it lives as long as the producer that made it."""

    def __init__(self) -> None:
        self._producer: Any = confluent_kafka.Producer(
            {"test.mock.num.brokers": 1, "bootstrap.servers": "made by librdkafka", "log_level": 0}
        )
        broker = self._producer.list_topics(timeout=READY_S).brokers[BROKER]
        self.servers = f"{broker.host}:{broker.port}"
        [library] = (Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs").glob("librdkafka-*")
        self._library = ctypes.CDLL(str(library))
        self._library.rd_kafka_handle_mock_cluster.restype = ctypes.c_void_p
        # What the client keeps for itself: the pointer to librdkafka's object follows Python's own head.
        client = ctypes.c_void_p.from_address(id(self._producer) + object.__basicsize__)
        self._cluster = ctypes.c_void_p(self._library.rd_kafka_handle_mock_cluster(client))
        # A real broker waits three seconds for more members of a group.
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)

    def make_topic(self, name: str) -> None:
        """Make a topic: asking for it is enough."""
        self._producer.list_topics(topic=name, timeout=READY_S)

    def send(self, topic: str, message: bytes) -> None:
        self._producer.produce(topic, message, key="one partition, so that they stay in order")
        assert self._producer.flush(READY_S) == 0

    def publish(self, topic: str, name: str, document: dict[str, Any]) -> None:
        """Send a document as bluesky-kafka's Publisher packs it, without patching msgpack in this process."""
        self.send(topic, packed([name, document]))

    def place_of(self, group: str, topic: str) -> list[int]:
        """Return where a group would go on in each partition; -1001: at the end, since it has noted nothing."""
        with self._client(group) as client:
            return [each.offset for each in client.committed(self._partitions(topic), timeout=READY_S)]

    def end_of(self, topic: str) -> list[int]:
        """Return where each partition ends; -1001 where it is empty."""
        with self._client("nobody") as client:
            ends = [client.get_watermark_offsets(each, timeout=READY_S)[1] for each in self._partitions(topic)]
        return [end or confluent_kafka.OFFSET_INVALID for end in ends]

    def set_down(self) -> None:
        assert self._library.rd_kafka_mock_broker_set_down(self._cluster, BROKER) == 0

    def set_up(self) -> None:
        assert self._library.rd_kafka_mock_broker_set_up(self._cluster, BROKER) == 0

    @contextmanager
    def _client(self, group: str) -> Iterator[Any]:
        client = confluent_kafka.Consumer({"bootstrap.servers": self.servers, "group.id": group, "log_level": 0})
        yield client
        client.close()

    def _partitions(self, topic: str) -> list[Any]:
        found = self._producer.list_topics(topic=topic, timeout=READY_S).topics[topic].partitions
        return [confluent_kafka.TopicPartition(topic, number) for number in sorted(found)]


def packed(value: Any) -> bytes:
    """Pack a value with msgpack-numpy."""
    return bytes(msgpack_numpy.packb(value))
