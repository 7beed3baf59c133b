"""Documents that come by two ways reach the callback once, in order, one at a time."""

from __future__ import annotations

import threading
from typing import Any

from event_model import compose_run

from bluesky_jit.intake.junction import Junction


def run(events: int) -> list[tuple[str, dict[str, Any]]]:
    bundle = compose_run()
    descriptor = bundle.compose_descriptor(
        name="primary", data_keys={"x": {"source": "s", "dtype": "number", "shape": []}}
    )
    documents: list[tuple[str, Any]] = [("start", bundle.start_doc), ("descriptor", descriptor.descriptor_doc)]
    documents += [("event", descriptor.compose_event(data={"x": n}, timestamps={"x": n})) for n in range(events)]
    return [*documents, ("stop", bundle.compose_stop())]


def test_a_run_that_comes_both_ways_is_received_once_and_in_order() -> None:
    received: list[tuple[str, dict[str, Any]]] = []
    junction = Junction(lambda *document: received.append(document))
    one, other = junction.way("0MQ"), junction.way("Kafka")
    documents = run(events=6)
    # Now the one is ahead, now the other.
    for way, document in [
        *((one, each) for each in documents[:3]),
        *((other, each) for each in documents[:6]),
        *((one, each) for each in documents[3:]),
        *((other, each) for each in documents[6:]),
    ]:
        way(*document)
    assert received == documents


def test_runs_that_come_one_way_each_are_all_received() -> None:
    received: list[tuple[str, dict[str, Any]]] = []
    junction = Junction(lambda *document: received.append(document))
    mine, others = run(events=2), run(events=2)
    for one, other in zip(mine, others, strict=True):
        junction.way("0MQ")(*one)
        junction.way("Kafka")(*other)
    assert [each for each in received if each in mine] == mine
    assert [each for each in received if each in others] == others


def test_a_run_that_is_played_again_the_same_way_is_received_again() -> None:
    received: list[tuple[str, dict[str, Any]]] = []
    way = Junction(lambda *document: received.append(document)).way("0MQ")
    documents = run(events=2)
    for document in [*documents, *documents]:
        way(*document)
    assert received == [*documents, *documents]


def test_pages_and_datums_are_told_apart_by_what_they_have() -> None:
    received: list[str] = []
    junction = Junction(lambda name, _: received.append(name))
    for way in (junction.way("0MQ"), junction.way("Kafka")):
        way("event_page", {"uid": ["a", "b"]})
        way("datum", {"datum_id": "r/0"})
        way("datum_page", {"datum_id": ["r/1", "r/2"]})
    assert received == ["event_page", "datum", "datum_page"]


def test_what_is_remembered_stays_bounded() -> None:
    received: list[str] = []
    junction = Junction(lambda _, document: received.append(document["uid"]), remembered=2)
    one, other = junction.way("0MQ"), junction.way("Kafka")
    for uid in "abc":
        one("start", {"uid": uid})
    for uid in "cba":
        other("start", {"uid": uid})
    # `a` was forgotten, and comes again; what is newer is not.
    assert received == ["a", "b", "c", "a"]


def test_two_threads_never_meet_in_the_callback() -> None:
    inside, may_leave = threading.Event(), threading.Event()
    received: list[str] = []

    def receive(_: str, document: dict[str, Any]) -> None:
        received.append(document["uid"])
        inside.set()
        assert may_leave.wait(30)

    junction = Junction(receive)
    first = threading.Thread(target=junction.way("0MQ"), args=("event", {"uid": "first"}))
    second = threading.Thread(target=junction.way("Kafka"), args=("event", {"uid": "second"}))
    first.start()
    assert inside.wait(30)
    second.start()
    # It is kept waiting for as long as the first is inside.
    second.join(0.2)
    assert received == ["first"]
    may_leave.set()
    for thread in (first, second):
        thread.join()
    assert received == ["first", "second"]
