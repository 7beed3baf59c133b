"""Documents lost, doubled, late or out of order: nothing raises, no frame has another's angle, and counts are exact."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from numbered_runs import Documents, delivered
from numbered_session import Bench, numbered_session

FATES = ["kept"] * 24 + ["lost", "lost", "twice", "twice", "next", "late", "late"]
"""What becomes of a document on its way; mostly nothing."""
NEXT, LATE = 1, 20
"""After how many others a document comes that changes places with the next, or that is late."""
GARBAGE: Documents = [
    ("event", {}),
    ("event", None),
    ("event", {"descriptor": ["unhashable"]}),
    ("event", {"descriptor": "never seen", "data": {}}),
    ("descriptor", {"uid": 3}),
    ("descriptor", {"uid": "d", "run_start": "never seen", "name": "primary", "data_keys": None}),
    ("stream_datum", {"stream_resource": "never seen", "descriptor": "never seen", "indices": {"start": 0, "stop": 5}}),
    ("stream_resource", {"uid": "r", "run_start": None}),
    ("start", {}),
    ("start", {"uid": None, "tomo": None}),
    ("stop", {"run_start": "never seen", "exit_status": "success"}),
    ("stop", "stop"),
    ("nonsense", {}),
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with numbered_session(tmp_path_factory.mktemp("files")) as bench:
        yield bench


@st.composite
def disorders(draw: st.DrawFn, documents: Documents, *, stop: bool = True) -> Documents:
    """Draw how documents come after their start: some not, some twice, some later than others, with garbage between."""
    placed: list[tuple[int, int, tuple[str, Any]]] = []
    for place, document in enumerate(documents[1:]):
        fate = draw(st.sampled_from(FATES))
        if document[0] == "stop":
            fate = draw(st.sampled_from(["kept", "kept", "twice", "early"])) if stop else "lost"
        copies = {
            "lost": [],
            "twice": [0, draw(st.integers(0, LATE))],
            "next": [NEXT],
            "late": [LATE],
            "early": [-LATE],
        }
        placed += [(place + by, len(placed), document) for by in copies.get(fate, [0])]
    placed.sort(key=lambda each: each[:2])
    sent = [document for _, _, document in placed]
    for wrong in draw(st.lists(st.sampled_from(GARBAGE), max_size=3)):
        sent.insert(draw(st.integers(0, len(sent))), wrong)
    return [documents[0], *sent]


# Without shrinking: every example takes a run's time.
few = settings(
    max_examples=8,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def interleaved(draw: st.DrawFn, first: Documents, second: Documents) -> Documents:
    """Draw how the documents of two runs come in turns."""
    order = draw(st.permutations([0] * len(first) + [1] * len(second)))
    left = (iter(first), iter(second))
    return [next(left[run]) for run in order]


both = pytest.mark.parametrize("filed", [True, False], ids=["files", "events"])


@both
@few
@given(data=st.data())
def test_whatever_becomes_of_documents_frames_that_came_are_used_once_with_their_own_angle(
    bench: Bench, filed: bool, data: st.DataObject
) -> None:
    sent = data.draw(disorders(bench.documents(1, filed=filed)))
    [came] = delivered(document for document in sent if document not in GARBAGE)
    bench.send(sent)
    bench.wait_until_ended(came.uid)
    bench.check(came, 1)
    bench.check_that_the_next_run_works(filed=filed)


@both
@few
@given(data=st.data())
def test_two_runs_at_a_time_are_kept_apart(bench: Bench, filed: bool, data: st.DataObject) -> None:
    runs = [data.draw(disorders(bench.documents(run, filed=filed))) for run in range(2)]
    sent = data.draw(interleaved(*runs))
    by_uid = {came.uid: came for came in delivered(document for document in sent if document not in GARBAGE)}
    bench.send(sent)
    for run, [(_, start), *_] in enumerate(runs):
        bench.wait_until_ended(start["uid"])
        bench.check(by_uid[start["uid"]], run)
    bench.check_that_the_next_run_works(filed=filed)


def test_runs_whose_stop_never_comes_are_ended_with_exact_counts_and_do_no_harm(bench: Bench) -> None:
    """There is room for four at a time: each that begins beyond them ends the one that was silent for longest."""
    unstopped = [bench.documents(1, filed=filed)[:-1] for filed in (True, False) * 4]
    for documents in unstopped:
        bench.send(documents)
    first = unstopped[0][0][1]["uid"]
    bench.wait_until_ended(first)
    stop = bench.sink.stop_of(first)
    assert stop is not None
    assert stop.exit_status == "fail"
    [came] = delivered(unstopped[0])
    bench.check(came, 1)
    bench.check_that_the_next_run_works(filed=True)
