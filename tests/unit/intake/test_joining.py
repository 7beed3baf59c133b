"""JITCallback and runs that it did not hear from their beginning, or hears twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from recorder import Recorder, inline_run

from bluesky_jit.intake.callback import MOST_OPEN, JITCallback
from bluesky_jit.intake.late_run import LateRun, RecordedRun
from bluesky_jit.intake.late_stream import RecordedStream
from bluesky_jit.messages import InlineFrames, Problem, RunStart, RunStop

FRAMES = np.arange(5 * 4 * 6, dtype=np.uint16).reshape(5, 4, 6)


class Asked:
    """Stand in for Tiled: what was asked for is answered by the test."""

    def __init__(self) -> None:
        self.late: list[LateRun] = []

    def ask(self, late: LateRun, receiver: JITCallback) -> None:
        self.late.append(late)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def callback(recorder: Recorder, asked: Asked) -> JITCallback:
    return JITCallback(recorder, asked)  # type: ignore[arg-type]


def run_of(count: int) -> list[tuple[str, Any]]:
    documents: list[tuple[str, Any]] = []
    inline_run(lambda name, document: documents.append((name, dict(document))), {"primary": FRAMES[:count]})
    return documents


def play(documents: list[tuple[str, Any]], callback: JITCallback) -> None:
    for name, document in documents:
        callback(name, document)


def brought(recorder: Recorder) -> list[int]:
    """Return which frames came."""
    return [int(message.counts[0, 0, 0]) // 24 for message in recorder.of(InlineFrames)]


def test_without_anybody_to_ask_the_message_says_what_is_missing(recorder: Recorder) -> None:
    play(run_of(3)[2:], JITCallback(recorder))
    [problem] = recorder.messages
    assert "joined a run after its start, and there is no Tiled (tiled.uri) to ask" in problem.text
    assert "the next run will be picked up" in problem.text


def test_a_late_run_is_asked_for_once(callback: JITCallback, asked: Asked, recorder: Recorder) -> None:
    play(run_of(3)[2:], callback)
    assert len(asked.late) == 1
    assert recorder.messages == []


def test_two_late_runs_at_a_time_each_have_their_own_end(
    callback: JITCallback, asked: Asked, recorder: Recorder
) -> None:
    first, second = run_of(3), run_of(4)
    play([first[3], second[3], second[4], first[4]], callback)
    play([second[5], second[6], first[5]], callback)
    # An end names a run, and events do not: whose it is, the records tell.
    for late in list(asked.late):
        uid = next((each[0][1]["uid"] for each in (first, second) if each[0][1]["uid"] in late.references), None)
        run = first if uid == first[0][1]["uid"] or (uid is None and first[1][1]["uid"] in late.references) else second
        stream = RecordedStream(descriptors=(run[1][1],), columns={}, events=(run[2][1],))
        callback.learned(late, RecordedRun(start=run[0][1], streams=(stream,)))
    assert all(late.over for late in asked.late)
    assert {stop.run_uid for stop in recorder.of(RunStop)} == {first[0][1]["uid"], second[0][1]["uid"]}
    assert sorted(brought(recorder)) == [0, 0, 1, 1, 2, 2, 3]


def test_a_run_that_is_found_is_made_up_for_and_goes_on(
    callback: JITCallback, asked: Asked, recorder: Recorder
) -> None:
    documents = run_of(5)
    play(documents[4:6], callback)
    [late] = asked.late
    stream = RecordedStream(descriptors=(documents[1][1],), columns={}, events=(documents[2][1], documents[3][1]))
    assert callback.learned(late, RecordedRun(start=documents[0][1], streams=(stream,)))
    play(documents[6:], callback)
    assert brought(recorder) == [0, 1, 2, 3, 4]
    assert [stop.run_uid for stop in recorder.of(RunStop)] == [documents[0][1]["uid"]]
    assert recorder.of(Problem) == []


def test_a_run_that_is_sent_again_from_its_beginning_needs_no_record(
    callback: JITCallback, asked: Asked, recorder: Recorder
) -> None:
    documents = run_of(5)
    play(documents[4:6], callback)
    play(documents, callback)
    assert brought(recorder) == [0, 1, 2, 3, 4]
    assert (len(recorder.of(RunStart)), len(recorder.of(RunStop))) == (1, 1)
    # And what is found in Tiled afterwards is no run that was missed.
    [late] = asked.late
    assert late.over
    assert not callback.learned(late, RecordedRun(start=documents[0][1]))
    assert len(recorder.of(RunStart)) == 1


def test_what_comes_twice_of_an_open_run_is_left_out(callback: JITCallback, recorder: Recorder) -> None:
    documents = run_of(5)
    play(documents[:5], callback)
    play(documents, callback)
    assert brought(recorder) == [0, 1, 2, 3, 4]
    assert recorder.of(Problem) == []


def test_a_run_that_has_ended_may_be_played_again_but_its_stragglers_are_no_late_run(
    callback: JITCallback, asked: Asked, recorder: Recorder
) -> None:
    documents = run_of(2)
    play(documents, callback)
    play(documents[2:], callback)
    assert (brought(recorder), asked.late) == ([0, 1], [])
    play(documents, callback)
    assert brought(recorder) == [0, 1, 0, 1]


def test_a_late_run_without_a_record_is_told_and_left_alone(
    callback: JITCallback, asked: Asked, recorder: Recorder
) -> None:
    documents = run_of(4)
    play(documents[2:4], callback)
    callback.lost(asked.late[0], "Tiled does not have it")
    play(documents[4:], callback)
    [problem] = recorder.messages
    assert problem.text == (
        "joined a run after its start, and Tiled does not have it: its slices cannot be made; the next run will be "
        "picked up"
    )
    assert len(asked.late) == 1


def test_documents_of_a_late_run_do_not_fill_the_memory(callback: JITCallback, recorder: Recorder) -> None:
    image = np.zeros(30 * 2**20, np.uint8)
    for number in range(10):
        callback("event", {"uid": str(number), "descriptor": "missed", "data": {"image": image}})
    [problem] = recorder.messages
    assert "more than 128 MB of it came before its record was found" in problem.text


def test_runs_that_are_never_ended_are_so_by_those_after_them(callback: JITCallback, recorder: Recorder) -> None:
    starts = [run_of(1)[0] for _ in range(MOST_OPEN + 2)]
    play(starts, callback)
    # A run whose start tells nothing but frames that never came has nothing to end.
    assert len(callback._open_runs) == MOST_OPEN
    assert [stop.run_uid for stop in recorder.of(RunStop)] == [start["uid"] for _, start in starts[:2]]
