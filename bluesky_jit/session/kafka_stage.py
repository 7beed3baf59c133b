"""The stage that takes documents from Kafka, beside those that come over 0MQ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bluesky_jit.intake.junction import Junction
from bluesky_jit.messages import Problem
from bluesky_jit.session.health import Stage
from bluesky_jit.settings_sections import ServeSettings

Receive = Callable[[str, dict[str, Any]], None]

JOIN_S = 5.0


@contextmanager
def beside_kafka(settings: ServeSettings, receive: Receive, report: Callable[[Problem], None]) -> Iterator[Receive]:
    """Give what takes the documents that come another way; those of the settings' Kafka topics, if any, come beside.

    Both reach `receive` one at a time, and a document that comes both ways reaches it once.
    """
    if not settings.kafka_servers:
        yield receive
        return
    # librdkafka is only loaded where it is used.
    from bluesky_jit.intake.kafka import KafkaSource

    junction = Junction(receive)
    source = KafkaSource(settings, junction.way("Kafka"), report)
    stage = Stage("kafka", source.loop, report)
    stage.start()
    try:
        yield junction.way("0MQ")
    finally:
        source.stop()
        if stage.join(JOIN_S):
            source.close()
