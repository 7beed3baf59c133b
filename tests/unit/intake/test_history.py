"""What is sent again to a listener that missed the beginning of a run."""

from typing import Any

import numpy as np

from bluesky_jit.intake.history import History


def rows(first: int, stop: int, *, resource: str = "r", descriptor: str = "d") -> tuple[str, Any]:
    spans = {"indices": {"start": first, "stop": stop}, "seq_nums": {"start": first + 1, "stop": stop + 1}}
    return "stream_datum", {
        "uid": f"{resource}/{first}",
        "stream_resource": resource,
        "descriptor": descriptor,
        **spans,
    }


def kept(*documents: tuple[str, Any], most_bytes: int = 10**6) -> list[tuple[str, Any]]:
    history = History(most_bytes)
    for name, document in documents:
        history.add(name, document)
    return history.documents()


START, STOP = ("start", {"uid": "run"}), ("stop", {"uid": "s", "run_start": "run"})


def test_a_run_is_kept_while_it_is_open() -> None:
    assert kept(START, ("descriptor", {"uid": "d"})) == [START, ("descriptor", {"uid": "d"})]
    assert kept(START, STOP) == []
    assert kept(STOP, rows(0, 1)) == []


def test_rows_that_follow_each_other_are_one_document() -> None:
    found = kept(START, rows(0, 2), rows(0, 2, resource="other"), rows(2, 5), rows(2, 5, resource="other"), rows(7, 8))
    spans = [(each["stream_resource"], each["indices"], each["seq_nums"]) for _, each in found[1:]]
    assert spans == [
        ("r", {"start": 0, "stop": 5}, {"start": 1, "stop": 6}),
        ("other", {"start": 0, "stop": 5}, {"start": 1, "stop": 6}),
        ("r", {"start": 7, "stop": 8}, {"start": 8, "stop": 9}),
    ]


def test_an_inner_run_that_ends_leaves_the_outer_one() -> None:
    inner = ("start", {"uid": "inner"})
    found = kept(START, inner, ("stop", {"uid": "s", "run_start": "inner"}))
    assert found[:2] == [START, inner]
    assert len(found) == 3


def test_a_run_that_is_too_large_is_forgotten_whole_and_the_next_is_kept() -> None:
    large = ("event", {"uid": "e", "data": {"image": np.zeros(10**6, np.uint8)}})
    assert kept(START, large, rows(0, 1)) == []
    again = ("start", {"uid": "next"})
    assert kept(START, large, STOP, again) == [again]
