"""A run that was joined late: its record and what comes give each row and each event once, in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from event_model import compose_run

from bluesky_jit.intake.history import CAUGHT_UP
from bluesky_jit.intake.late_run import LateRun, RecordedRun
from bluesky_jit.intake.late_stream import RecordedColumn, RecordedStream

COLUMNS = {"camera": "/data", "angle": "/angle"}
Documents = list[tuple[str, Any]]


class Scan:
    """Compose the documents of a run whose frames are in files."""

    def __init__(self) -> None:
        self.run = compose_run(metadata={"tomo": {}})
        self.start = dict(self.run.start_doc)
        self._descriptors: dict[str, Any] = {}

    def descriptor(self, stream: str, **more: Any) -> dict[str, Any]:
        if stream not in self._descriptors:
            keys = {key: {"source": "PV", "dtype": "number", "shape": [], "external": "STREAM:"} for key in COLUMNS}
            self._descriptors[stream] = self.run.compose_descriptor(name=stream, data_keys=keys | more)
        return dict(self._descriptors[stream].descriptor_doc)

    def resources(self, uri: str) -> list[Any]:
        return [
            self.run.compose_stream_resource(
                mimetype="application/x-hdf5", uri=uri, data_key=key, parameters={"dataset": dataset}
            )
            for key, dataset in COLUMNS.items()
        ]

    def rows(self, resource: Any, stream: str, first: int, stop: int, *, row: int | None = None) -> tuple[str, Any]:
        """Announce rows of a file; row: the first one's number in the stream, by default the same."""
        row = first if row is None else row
        numbers = {"start": row + 1, "stop": row + 1 + stop - first}
        datum = resource.compose_stream_datum({"start": first, "stop": stop}, numbers, self.descriptor(stream))
        return "stream_datum", dict(datum)

    def recorded(self, stream: str, rows: int, *uris: str, **more: Any) -> RecordedStream:
        columns = {
            key: RecordedColumn(uris=uris, parameters={"dataset": dataset}, rows=rows)
            for key, dataset in COLUMNS.items()
        }
        return RecordedStream(descriptors=(self.descriptor(stream),), columns=columns if uris else {}, **more)

    def record(self, *streams: RecordedStream, **more: Any) -> RecordedRun:
        return RecordedRun(start=self.start, streams=streams, **more)

    def stop(self, **counts: int) -> tuple[str, Any]:
        return "stop", {**self.run.compose_stop(), "num_events": counts}


def given(documents: Documents) -> dict[str, list[tuple[str, int, int]]]:
    """Return what documents bring of each data key: in which file, from which row to which."""
    named = {document["uid"]: document for name, document in documents if name == "stream_resource"}
    found: dict[str, list[tuple[str, int, int]]] = {}
    for name, document in documents:
        if name == "stream_datum":
            resource, rows = named[document["stream_resource"]], document["indices"]
            found.setdefault(resource["data_key"], []).append((resource["uri"], rows["start"], rows["stop"]))
    return found


def rows_of(documents: Documents) -> list[tuple[str, int, int]]:
    """Return the rows of the camera, which are those of the angle."""
    found = given(documents)
    assert found.get("camera") == found.get("angle")
    return found.get("camera", [])


def hear(late: LateRun, documents: Documents) -> Documents:
    return [each for name, document in documents for each in late.hear(name, document)]


def test_nothing_is_handed_on_before_the_record_is_found() -> None:
    scan, late = Scan(), LateRun()
    resources = scan.resources("file:///a.h5")
    assert hear(late, [scan.rows(each, "primary", 4, 6) for each in resources]) == []
    assert scan.descriptor("primary")["uid"] in late.references


def test_rows_on_record_and_rows_heard_come_once_under_new_names() -> None:
    scan, late = Scan(), LateRun()
    resources = scan.resources("file:///a.h5")
    hear(late, [scan.rows(each, "primary", 4, 6) for each in resources])
    documents = late.learn(scan.record(scan.recorded("primary", 3, "file:///a.h5")))
    assert [name for name, _ in documents[:3]] == ["start", "descriptor", "stream_resource"]
    assert documents[0][1] == {**scan.start, CAUGHT_UP: True}
    # Those between the record and what was heard are in the file.
    assert rows_of(documents) == [("file:///a.h5", 0, 3), ("file:///a.h5", 3, 6)]
    later = hear(late, [scan.rows(each, "primary", 6, 8) for each in resources])
    later += late.learn(scan.record(scan.recorded("primary", 7, "file:///a.h5")))
    assert rows_of(documents + later)[2:] == [("file:///a.h5", 6, 8)]
    numbers = [document["seq_nums"] for name, document in documents + later if name == "stream_datum"]
    assert numbers[::2] == [{"start": 1, "stop": 4}, {"start": 4, "stop": 7}, {"start": 7, "stop": 9}]


def test_rows_that_one_column_lacks_wait_for_it() -> None:
    scan, late = Scan(), LateRun()
    camera, angle = scan.resources("file:///a.h5")
    documents = late.learn(scan.record(scan.recorded("primary", 2, "file:///a.h5")))
    assert hear(late, [scan.rows(camera, "primary", 2, 6)]) == []
    documents += hear(late, [scan.rows(angle, "primary", 2, 5)])
    assert rows_of(documents) == [("file:///a.h5", 0, 2), ("file:///a.h5", 2, 5)]


def test_streams_that_share_a_file_each_have_their_own_rows() -> None:
    scan, late = Scan(), LateRun()
    resources = scan.resources("file:///a.h5")
    darks = scan.recorded("darks", 3, "file:///a.h5")
    documents = late.learn(scan.record(darks, scan.recorded("primary", 2, "file:///a.h5")))
    assert rows_of(documents) == [("file:///a.h5", 0, 3), ("file:///a.h5", 3, 5)]
    documents += hear(late, [scan.rows(each, "primary", 5, 9, row=2) for each in resources])
    assert rows_of(documents)[2:] == [("file:///a.h5", 5, 9)]


def test_a_new_stream_in_a_file_that_was_announced_before_is_taken_from_its_record() -> None:
    scan, late = Scan(), LateRun()
    resources = scan.resources("file:///a.h5")
    darks = scan.recorded("darks", 3, "file:///a.h5")
    documents = late.learn(scan.record(darks))
    documents += late.hear("descriptor", scan.descriptor("primary"))
    documents += hear(late, [scan.rows(each, "primary", 3, 5, row=0) for each in resources])
    assert rows_of(documents) == [("file:///a.h5", 0, 3)]
    documents += late.learn(scan.record(darks, scan.recorded("primary", 1, "file:///a.h5")))
    assert rows_of(documents)[1:] == [("file:///a.h5", 3, 4), ("file:///a.h5", 4, 5)]
    assert [name for name, _ in documents].count("descriptor") == 2


def test_a_stream_that_went_on_in_another_file_has_the_rows_of_both(tmp_path: Path) -> None:
    scan, late = Scan(), LateRun()
    path = tmp_path / "first half.h5"
    with h5py.File(path, "w", libver="latest") as file:
        for dataset in COLUMNS.values():
            file[dataset] = np.zeros(4)
    first, second = f"file://localhost{str(path).replace(' ', '%20')}", "file:///b.h5"
    resources = scan.resources(second)
    documents = late.learn(scan.record(scan.recorded("flats", 4, first)))
    # The second one is not on record yet.
    documents += hear(late, [scan.rows(each, "flats", 5, 7, row=9) for each in resources])
    assert rows_of(documents) == [(first, 0, 4)]
    documents += late.learn(scan.record(scan.recorded("flats", 5, first, second)))
    assert rows_of(documents)[1:] == [(second, 0, 1), (second, 1, 7)]
    numbers = [document["seq_nums"] for name, document in documents if name == "stream_datum"]
    assert numbers[-1] == {"start": 6, "stop": 12}


def test_what_is_sent_again_from_the_beginning_is_handed_on_as_it_is() -> None:
    scan, late = Scan(), LateRun()
    late.learn(scan.record(scan.recorded("primary", 2, "file:///a.h5")))
    resources = scan.resources("file:///a.h5")
    again: Documents = [("stream_resource", dict(each.stream_resource_doc)) for each in resources]
    again += [scan.rows(each, "primary", 0, 5) for each in resources]
    assert hear(late, [("descriptor", scan.descriptor("primary"))]) == []
    assert hear(late, again) == again
    assert late.hear(*scan.stop(primary=5)) != []


def test_the_end_waits_for_all_that_it_counts() -> None:
    scan, late = Scan(), LateRun()
    stop = scan.stop(flats=4, primary=3)
    documents = late.learn(scan.record(scan.recorded("flats", 2, "file:///f.h5")))
    assert late.hear(*stop) == []
    assert late.ending
    record = scan.record(scan.recorded("flats", 4, "file:///f.h5"), scan.recorded("primary", 3, "file:///p.h5"))
    documents += late.learn(record)
    assert rows_of(documents) == [("file:///f.h5", 0, 2), ("file:///f.h5", 2, 4), ("file:///p.h5", 0, 3)]
    assert documents[-1] == stop
    assert late.over


def test_another_runs_end_that_came_meanwhile_is_not_its_own() -> None:
    scan, other, late = Scan(), Scan(), LateRun()
    hear(late, [other.stop(primary=2)])
    documents = late.learn(scan.record(scan.recorded("primary", 2, "file:///a.h5")))
    assert rows_of(documents) == [("file:///a.h5", 0, 2)]
    assert not late.over


def test_a_record_that_stays_behind_is_given_up() -> None:
    scan, late = Scan(), LateRun()
    stop = scan.stop(flats=4)
    late.learn(scan.record(scan.recorded("flats", 2, "file:///f.h5")))
    assert late.hear(*stop) == []
    assert late.give_up() == [stop]
    assert late.over


def test_an_end_that_nobody_heard_is_taken_from_the_record() -> None:
    scan, late = Scan(), LateRun()
    _, stop = scan.stop(primary=2)
    documents = late.learn(scan.record(scan.recorded("primary", 2, "file:///a.h5"), stop=stop))
    assert rows_of(documents) == [("file:///a.h5", 0, 2)]
    assert documents[-1] == ("stop", stop)


@pytest.mark.parametrize("order", [(1, 2, 3, 4, 5), (4, 5, 1, 2, 3), (3, 1, 2)])
def test_events_wait_for_those_before_them(order: tuple[int, ...]) -> None:
    scan, late = Scan(), LateRun()
    late.learn(scan.record())
    run = compose_run()
    keys: Any = {"theta": {"source": "PV", "dtype": "number", "shape": []}}
    bundle = run.compose_descriptor(name="primary", data_keys=keys)
    events = [
        dict(bundle.compose_event(data={"theta": 1.0 * n}, timestamps={"theta": 1.0}, seq_num=n)) for n in range(1, 6)
    ]
    descriptor = {**bundle.descriptor_doc, "run_start": scan.start["uid"]}
    recorded = RecordedStream(descriptors=(descriptor,), columns={}, events=(events[0],))
    late.learn(scan.record(recorded))
    documents = hear(late, [("event", events[n - 1]) for n in order if n != 2])
    documents += late.learn(scan.record(RecordedStream(descriptors=(descriptor,), columns={}, events=(events[1],))))
    numbers = [document["seq_num"] for name, document in documents if name == "event"]
    assert numbers == sorted({*order} - {1})
    assert late.events_had == {"primary": max(order)}
