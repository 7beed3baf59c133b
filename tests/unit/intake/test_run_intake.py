"""One run's documents: when its frames are handed on, with which angles, and what is said of those without."""

from itertools import permutations
from pathlib import Path
from typing import Any

import dialect_runs
import numpy as np
import pytest
from dialect_runs import in_bulk
from dialect_scan import NOW_S, N, Run, Scan
from event_model import pack_event_page
from recorder import Recorder

from bluesky_jit.intake.callback import JITCallback
from bluesky_jit.intake.run_intake import RunIntake
from bluesky_jit.messages import AssetFrames, InlineFrames, Problem, RunStart, RunStop
from bluesky_jit.settings import load_settings

FRAME = np.ones((4, 6), dtype=np.uint16)
PICTURE = {"dtype": "array", "shape": [4, 6]}
DEGREES = {"dtype": "number", "shape": [], "units": "deg"}


@pytest.fixture(scope="module")
def scan() -> Scan:
    """Return a scan whose frames show nothing."""
    frames = np.ones((N, 4, 6), dtype=np.uint16)
    return Scan(
        darks=frames[:5],
        flats=frames[:20],
        projections=frames,
        angles_deg=3.0 * np.arange(N),
        times_s=NOW_S + 20 + 0.1 * np.arange(N),
    )


def recorder(**intake: Any) -> Recorder:
    return Recorder(settings=load_settings(environment={}, intake=intake))


def texts(recorder: Recorder) -> list[str]:
    return [problem.text for problem in recorder.of(Problem)]


# ── whose frames are handed on ───────────────────────────────────────────────────────────────────────────────────────


def test_a_run_with_pictures_that_is_no_tomography_is_never_heard_of() -> None:
    received = recorder()
    run = Run(JITCallback(received), plan_name="count", motors=["x"])
    stream = run.stream("primary", camera=PICTURE, x={"dtype": "number", "shape": [], "units": "mm"})
    run.event(stream, NOW_S, camera=FRAME, x=1.0)
    run.stop()
    assert received.messages == []


def test_an_outer_run_without_frames_is_never_heard_of() -> None:
    received = recorder(plans=["adaptive"])
    run = Run(JITCallback(received), plan_name="adaptive")
    stream = run.stream("primary", score={"dtype": "number", "shape": []})
    run.event(stream, NOW_S, score=1.0)
    run.stop()
    assert received.messages == []


def test_a_known_plan_whose_pictures_are_in_a_stream_of_another_name_says_so() -> None:
    received = recorder(plans=["my_scan"])
    run = Run(JITCallback(received), plan_name="my_scan")
    run.event(run.stream("pictures", camera=PICTURE), NOW_S, camera=FRAME)
    run.stop()
    [text] = texts(received)
    assert "its streams are pictures" in text
    assert not received.of(RunStart)


def test_the_first_frames_of_an_unknown_plan_are_kept_until_it_shows_what_it_is() -> None:
    received = recorder()
    run = Run(JITCallback(received), plan_name="my_scan")
    primary = run.stream("primary", camera=PICTURE, theta=DEGREES)
    for number in range(3):
        run.event(primary, NOW_S + number, camera=FRAME * number, theta=float(number))
    assert received.messages == []
    run.event(run.stream("flat", camera=PICTURE), NOW_S + 9, camera=FRAME)
    run.stop()
    assert [type(message) for message in received.messages] == [RunStart, *[InlineFrames] * 4, RunStop]
    assert [m.kind for m in received.of(InlineFrames)] == ["projection"] * 3 + ["flat"]
    assert [int(m.counts.max()) for m in received.of(InlineFrames)] == [0, 1, 2, 1]


def test_a_broken_document_spoils_no_other_that_was_kept(tmp_path: Path) -> None:
    received = recorder()
    run = Run(JITCallback(received), plan_name="my_scan")
    primary = run.stream("primary", camera={**PICTURE, "external": "FILESTORE:"})
    run.event(primary, NOW_S, camera=dialect_runs.filed(run, "AD_TIFF", tmp_path / "x", {}, {}))
    run.event(run.stream("flat", camera=PICTURE), NOW_S + 9, camera=FRAME)
    assert [m.kind for m in received.of(InlineFrames)] == ["flat"]
    [text] = texts(received)
    assert "'AD_TIFF'" in text


def test_frames_that_could_not_be_kept_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bluesky_jit.intake.undecided.MOST_BYTES", 2 * FRAME.nbytes)
    received = recorder()
    run = Run(JITCallback(received), plan_name="my_scan")
    primary = run.stream("primary", camera=PICTURE, theta=DEGREES)
    for number in range(5):
        run.event(primary, NOW_S, camera=FRAME, theta=float(number))
    run.stream("flat", camera=PICTURE)
    assert len(received.of(InlineFrames)) == 2
    [text] = texts(received)
    assert "3 events" in text
    assert "'my_scan', in intake.plans" in text


def test_documents_in_bulk_say_the_same(scan: Scan, tmp_path: Path) -> None:
    documents: list[tuple[str, Any]] = []
    dialect_runs.fxi_fly_scan(lambda name, doc: documents.append((name, doc)), scan, tmp_path)
    single, bulk = recorder(), recorder()
    for received, sent in ((single, documents), (bulk, list(in_bulk(documents)))):
        callback = JITCallback(received)
        for name, document in sent:
            callback(name, document)
    assert len({name for name, _ in in_bulk(documents)} & {"bulk_events", "bulk_datum"}) == 2
    assert [m.image for m in bulk.of(AssetFrames)] == [m.image for m in single.of(AssetFrames)]
    assert len(bulk.of(AssetFrames)) == 3
    assert texts(bulk) == []


def test_a_broken_event_spoils_no_other_of_its_page(tmp_path: Path) -> None:
    received = recorder()
    run = Run(lambda *document: None, plan_name="my_scan", tomo={"n_angles_per_rotation": 8})
    intake = JITCallback(received)
    intake("start", run.bundle.start_doc)
    run.emit = intake
    stream = run.stream("primary", camera=PICTURE, theta=DEGREES)
    events = [run.composed(stream, NOW_S, camera=FRAME * n, theta=float(n)) for n in range(4)]
    events[1]["data"]["camera"] = dialect_runs.filed(run, "AD_TIFF", tmp_path / "x", {}, {})
    events[2]["data"]["theta"] = None
    intake("event_page", pack_event_page(*events))
    assert [(int(m.counts.max()), m.angle_source) for m in received.of(InlineFrames)] == [
        (0, "same stream"),
        (2, "plan arguments"),
        (3, "same stream"),
    ]
    [text] = texts(received)
    assert "files of kind 'AD_TIFF'" in text


# ── a monitored stage ────────────────────────────────────────────────────────────────────────────────────────────────


def monitored_run(received: Recorder) -> tuple[Run, Any, Any]:
    run = Run(JITCallback(received), plan_name="my_scan", tomo={"n_angles_per_rotation": 8})
    return run, run.stream("rot_monitor", rot=DEGREES), run.stream("primary", camera=PICTURE)


def test_a_frame_waits_for_the_monitors_next_sample() -> None:
    received = recorder()
    run, monitor, primary = monitored_run(received)
    run.event(monitor, NOW_S, rot=0.0)
    run.event(primary, NOW_S + 1, camera=FRAME)
    assert received.of(InlineFrames) == []
    run.event(monitor, NOW_S + 0.9, rot=9.0)
    assert received.of(InlineFrames) == []
    run.event(monitor, NOW_S + 1.9, rot=19.0)
    [frames] = received.of(InlineFrames)
    assert np.rad2deg(frames.angles_rad) == pytest.approx([10.0])
    assert frames.angle_source == "monitored stream"


def test_what_was_taken_after_a_frame_that_waits_is_handed_on_after_it() -> None:
    received = recorder()
    run, monitor, primary = monitored_run(received)
    run.event(monitor, NOW_S, rot=0.0)
    run.event(primary, NOW_S + 1, camera=FRAME)
    run.event(run.stream("flats", camera=PICTURE), NOW_S + 2, camera=FRAME)
    assert received.of(InlineFrames) == []
    run.event(monitor, NOW_S + 1.5, rot=3.0)
    assert [m.kind for m in received.of(InlineFrames)] == ["projection", "flat"]


def test_at_the_runs_end_nothing_waits_and_no_angle_is_made_up() -> None:
    received = recorder()
    run, monitor, primary = monitored_run(received)
    run.event(monitor, NOW_S, rot=0.0)
    run.event(primary, NOW_S + 1, camera=FRAME)
    run.stop()
    [frames] = received.of(InlineFrames)
    assert np.isnan(frames.angles_rad).all()


def test_no_more_frames_wait_than_the_queue_holds() -> None:
    received = recorder(queue_frames=3)
    run, monitor, primary = monitored_run(received)
    run.event(monitor, NOW_S, rot=0.0)
    for number in range(5):
        run.event(primary, NOW_S + 1 + number, camera=FRAME)
    assert len(received.of(InlineFrames)) == 2


def test_a_setting_allows_for_clocks_that_differ() -> None:
    received = recorder(monitor_delay_s=0.5)
    run, monitor, primary = monitored_run(received)
    run.event(monitor, NOW_S, rot=0.0)
    run.event(primary, NOW_S + 1, camera=FRAME)
    run.event(monitor, NOW_S + 1.2, rot=12.0)
    assert received.of(InlineFrames) == []
    run.event(monitor, NOW_S + 2, rot=20.0)
    [frames] = received.of(InlineFrames)
    assert np.rad2deg(frames.angles_rad) == pytest.approx([15.0])


def test_rows_of_a_stream_wait_for_a_sample_later_than_their_document(tmp_path: Path) -> None:
    received, now = recorder(), [NOW_S + 1.0]
    intake = RunIntake(received, clock=lambda: now[0])
    run = Run(intake, plan_name="my_scan", tomo={"n_angles_per_rotation": 8})
    monitor = run.stream("rot_monitor", rot=DEGREES)
    keys = {
        "camera": {**PICTURE, "external": "STREAM:"},
        "frame_time": {**DEGREES, "units": "s", "external": "STREAM:"},
    }
    primary = run.stream("primary", **keys)
    run.event(monitor, NOW_S, rot=0.0)
    for key in keys:
        dialect_runs.streamed(run, primary, key, tmp_path / "x.h5", f"/{key}", range(3))
    assert received.of(AssetFrames) == []
    run.event(monitor, NOW_S + 1.1, rot=11.0)
    [frames] = received.of(AssetFrames)
    assert frames.angle_track is not None
    assert np.rad2deg(frames.angle_track.at(np.array([NOW_S + 1.0]))) == pytest.approx([10.0])


# ── documents that come late or not at all ────────────────────────────────────────────────────────────────────────────


def withheld(received: Recorder, key: str, path: Path, *, rows: int = 6) -> tuple[Run, list[Any], list[Any]]:
    """Emit a run whose stream_resource of one key is kept back; return those of that key, and those that came."""
    intake = JITCallback(received)
    kept: list[Any] = []
    came: list[Any] = []

    def emit(name: str, document: Any) -> None:
        is_resource = name == "stream_resource"
        if is_resource:
            (kept if document["data_key"] == key else came).append(document)
        if not is_resource or document["data_key"] != key:
            intake(name, document)

    run = Run(emit, plan_name="my_scan", tomo={"n_angles_per_rotation": 8})
    keys = {"camera": PICTURE, "theta": DEGREES, "stats": DEGREES}
    stream = run.stream("primary", **{name: {**value, "external": "STREAM:"} for name, value in keys.items()})
    for name in keys:
        dialect_runs.streamed(run, stream, name, path, f"/{name}", range(rows), batch=2)
    run.emit = intake
    return run, kept, came


@pytest.mark.parametrize("key", ["camera", "theta"])
def test_rows_wait_for_the_document_that_says_where_they_are(tmp_path: Path, key: str) -> None:
    received = recorder()
    run, kept, _ = withheld(received, key, tmp_path / "x.h5")
    assert received.of(AssetFrames) == []
    run.emit("stream_resource", kept[0])
    run.stop()
    assert [(m.image.first, m.image.count) for m in received.of(AssetFrames)] == [(0, 2), (2, 2), (4, 2)]
    assert texts(received) == []
    [stop] = received.of(RunStop)
    assert stop.unlocated == {}


@pytest.mark.parametrize("key", ["camera", "theta"])
def test_rows_of_which_nobody_says_where_they_are_are_counted_and_the_document_named(tmp_path: Path, key: str) -> None:
    received = recorder()
    run, kept, _ = withheld(received, key, tmp_path / "x.h5")
    run.stop()
    [stop] = received.of(RunStop)
    assert stop.unlocated == {"projection": 6}
    assert (
        f"6 frames were announced, and where they are did not come (stream_resource {kept[0]['uid']})"
        in (texts(received)[0])
    )


def test_a_column_that_nobody_wants_is_not_waited_for(tmp_path: Path) -> None:
    received = recorder()
    run, _, _ = withheld(received, "stats", tmp_path / "x.h5")
    run.stop()
    assert len(received.of(AssetFrames)) == 3
    [stop] = received.of(RunStop)
    assert (stop.unlocated, texts(received)) == ({}, [])


def pointing_run(take: Any, path: Path) -> tuple[Run, list[tuple[str, Any]]]:
    """Begin a run of two events whose frames are at datums; return it with what follows its descriptor."""
    run = Run(take, plan_name="my_scan", tomo={"n_angles_per_rotation": 8})
    stream = run.stream("primary", camera={**PICTURE, "external": "FILESTORE:"}, theta=DEGREES)
    resource = run.bundle.compose_resource(
        spec="AD_HDF5", root=str(path.parent), resource_path=path.name, resource_kwargs={}
    )
    documents: list[tuple[str, Any]] = [("resource", resource.resource_doc)]
    for number in range(2):
        datum = resource.compose_datum(datum_kwargs={"point_number": number})
        documents.append(("datum", datum))
        documents.append(("event", run.composed(stream, NOW_S, camera=datum["datum_id"], theta=10.0 * number)))
    return run, documents


@pytest.mark.parametrize("take", [JITCallback, RunIntake])
def test_in_whatever_order_resource_datum_and_event_come_frames_have_their_own_angle(
    tmp_path: Path, take: type[JITCallback] | type[RunIntake]
) -> None:
    for order in permutations(range(5)):
        received = recorder()
        run, documents = pointing_run(take(received), tmp_path / "x.h5")
        for place in order:
            run.emit(*documents[place])
        run.stop()
        angles = {m.image.first: np.rad2deg(m.angles_rad) for m in received.of(AssetFrames)}
        assert angles == {0: pytest.approx([0.0]), 1: pytest.approx([10.0])}, order
        assert len(received.of(AssetFrames)) == 2, order
        assert texts(received) == [], order
        [stop] = received.of(RunStop)
        assert stop.unlocated == {}, order


@pytest.mark.parametrize(("lost", "n"), [("resource", 2), ("datum", 1)])
def test_frames_at_a_datum_or_resource_that_never_came_are_counted_and_the_document_named(
    tmp_path: Path, lost: str, n: int
) -> None:
    received = recorder()
    run, documents = pointing_run(JITCallback(received), tmp_path / "x.h5")
    kept = next(document for document in documents if document[0] == lost)
    for document in documents:
        if document is not kept:
            run.emit(*document)
    run.stop()
    [stop] = received.of(RunStop)
    assert stop.unlocated == {"projection": n}
    [text] = texts(received)
    # Whose a datum is nobody knows without its resource.
    frames = "1 frame was" if n == 1 else f"{n} frames were"
    assert f"{frames} announced, and where they are did not come (datum {documents[1][1]['datum_id']}" in text
    assert len(received.of(AssetFrames)) == 2 - n


def test_of_many_documents_that_never_came_the_first_are_named(tmp_path: Path) -> None:
    received = recorder()
    run = Run(JITCallback(received), plan_name="my_scan", tomo={"n_angles_per_rotation": 8})
    stream = run.stream("primary", camera={**PICTURE, "external": "FILESTORE:"}, theta=DEGREES)
    for number in range(20):
        run.event(stream, NOW_S, camera=f"r/{number}", theta=float(number))
    run.stop()
    [text] = texts(received)
    assert "(datum r/0, datum r/1, datum r/2 and 17 more)" in text


def test_a_datum_before_its_resource_is_no_sign_of_a_run_that_was_missed(tmp_path: Path) -> None:
    received = recorder()
    run, documents = pointing_run(JITCallback(received), tmp_path / "x.h5")
    run.emit(*documents[1])
    assert texts(received) == []
    run.emit("datum_page", {"resource": "of another run", "datum_id": ["x/0"], "datum_kwargs": {}})
    run.emit(*documents[0])
    run.emit(*documents[2])
    assert len(received.of(AssetFrames)) == 1
    assert texts(received) == []


# ── frames whose angle nobody knows ──────────────────────────────────────────────────────────────────────────────────


def test_a_known_plan_without_its_angle_says_what_was_looked_for(scan: Scan, tmp_path: Path) -> None:
    received = recorder(angle_key="Encoder")
    dialect_runs.hex_fly_scan(JITCallback(received), scan, tmp_path)
    text = next(text for text in texts(received) if "Encoder" in text)
    assert "angle key 'Encoder' is not in stream 'tomo', which has Angle, kinetix1" in text
    assert "there is none" in text
    assert received.of(AssetFrames)[-1].angle_source == "plan arguments"


def test_a_monitor_that_does_not_have_the_key_is_named(scan: Scan, tmp_path: Path) -> None:
    received = recorder(angle_key="zps_rot")
    dialect_runs.fxi_fly_scan(JITCallback(received), scan, tmp_path)
    [text] = texts(received)
    assert "'zps_pi_r_monitor': zps_pi_r, zps_pi_r_user_setpoint" in text


def test_an_event_whose_angles_are_not_as_many_as_its_frames_keeps_its_place() -> None:
    received = recorder()
    run = Run(JITCallback(received), plan_name="my_scan", tomo={"n_angles_per_rotation": 8})
    stream = run.stream("primary", camera={**PICTURE, "shape": [5, 4, 6]}, theta={**DEGREES, "shape": [4]})
    for _ in range(2):
        run.event(stream, NOW_S, camera=np.ones((5, 4, 6), dtype=np.uint16), theta=np.arange(4.0))
    [text] = texts(received)
    assert "holds 5 frames and 4 angles ('theta')" in text
    assert [(len(m.counts), bool(np.isnan(m.angles_rad).all())) for m in received.of(InlineFrames)] == [(5, True)] * 2


def test_rows_of_several_frames_with_one_angle_are_not_paired(tmp_path: Path) -> None:
    received = recorder()
    run = Run(JITCallback(received), plan_name="my_scan", tomo={"n_angles_per_rotation": 8})
    keys = {
        "camera": {**PICTURE, "shape": [5, 4, 6], "external": "STREAM:"},
        "theta": {**DEGREES, "external": "STREAM:"},
    }
    stream = run.stream("primary", **keys)
    for key in keys:
        dialect_runs.streamed(run, stream, key, tmp_path / "x.h5", f"/{key}", range(3))
    [text] = texts(received)
    assert "has 5 frames and 1 angles ('theta') an event" in text
    [frames] = received.of(AssetFrames)
    assert (frames.image.first, frames.image.count, frames.angle) == (0, 15, None)
    assert np.isnan(frames.angles_rad).all()


def test_rows_of_several_frames_with_as_many_angles_are(tmp_path: Path) -> None:
    received = recorder()
    run = Run(JITCallback(received), plan_name="my_scan", tomo={"n_angles_per_rotation": 8})
    external = {"external": "STREAM:"}
    stream = run.stream(
        "primary", camera={**PICTURE, "shape": [5, 4, 6], **external}, theta={**DEGREES, "shape": [5], **external}
    )
    for key in ("camera", "theta"):
        dialect_runs.streamed(run, stream, key, tmp_path / "x.h5", f"/{key}", range(1, 3))
    [frames] = received.of(AssetFrames)
    assert frames.angle is not None
    assert (frames.image.first, frames.image.count) == (frames.angle.first, frames.angle.count) == (5, 10)


def test_several_frames_at_one_angle_each_of_a_step_scan_have_that_angle() -> None:
    received = recorder()
    run = Run(JITCallback(received), plan_name="my_scan", tomo={"n_angles_per_rotation": 8})
    stream = run.stream("primary", camera={**PICTURE, "shape": [3, 4, 6]}, theta=DEGREES)
    run.event(stream, NOW_S, camera=np.ones((3, 4, 6), dtype=np.uint16), theta=90.0)
    [frames] = received.of(InlineFrames)
    assert frames.angles_rad == pytest.approx([np.pi / 2] * 3)


def test_a_run_without_angles_or_steps_keeps_the_record_of_its_frames() -> None:
    received = recorder()
    run = Run(JITCallback(received), plan_name="tomo_plan")
    stream = run.stream("projections", camera=PICTURE)
    for _ in range(3):
        run.event(stream, NOW_S, camera=FRAME)
    [text] = texts(received)
    assert "tomo.angles_per_turn" in text
    assert all(np.isnan(m.angles_rad).all() for m in received.of(InlineFrames))
    assert len(received.of(InlineFrames)) == 3


def test_files_that_are_not_hdf5_are_refused_by_name(tmp_path: Path) -> None:
    received = recorder()
    run = Run(JITCallback(received), plan_name="tomo_plan")
    stream = run.stream("projections", camera={**PICTURE, "external": "FILESTORE:"})
    datum_id = dialect_runs.filed(run, "AD_TIFF", tmp_path / "x", {}, {"point_number": 0})
    run.event(stream, NOW_S, camera=datum_id)
    assert any("files of kind 'AD_TIFF'" in text for text in texts(received))
