"""The callback: documents of a live run in, messages out, and never an exception."""

import math
from pathlib import Path

import numpy as np
import pytest
from event_model import compose_run
from recorder import TOMO, Recorder, filed_run, inline_run

from bluesky_jit.intake.callback import JITCallback
from bluesky_jit.messages import AssetFrames, InlineFrames, Problem, RunStart, RunStop
from bluesky_jit.settings import load_settings

FRAMES = np.arange(3 * 4 * 6, dtype=np.uint16).reshape(3, 4, 6)


def test_frames_in_events_become_messages_with_kind_and_angle() -> None:
    recorder = Recorder()
    uid = inline_run(JITCallback(recorder), {"darks": FRAMES[:1], "flats": FRAMES[:2], "primary": FRAMES})
    [start], [stop] = recorder.of(RunStart), recorder.of(RunStop)
    assert (start.run_uid, start.scan_id, start.tomo) == (uid, 7, TOMO)
    assert (stop.run_uid, stop.exit_status) == (uid, "success")
    frames = recorder.of(InlineFrames)
    assert [message.kind for message in frames] == ["dark", "flat", "flat"] + ["projection"] * 3
    assert frames[0].angles_rad is None
    assert np.concatenate([m.angles_rad for m in frames[3:]]) == pytest.approx(np.deg2rad([0, 45, 90]))
    assert frames[4].angle_source == "same stream"
    assert (frames[4].counts[0] == FRAMES[1]).all()
    assert frames[4].frame_times_s.tolist() == [1001.0]


def test_rows_in_files_wait_for_their_angles(tmp_path: Path) -> None:
    recorder = Recorder()
    columns = {"camera": "/entry/data/data", "camera_angle": "/angle"}
    rows = {"camera": [(0, 2), (2, 5)], "camera_angle": [(0, 4)]}
    filed_run(JITCallback(recorder), tmp_path / "frames.h5", rows, columns=columns)
    frames = recorder.of(AssetFrames)
    assert [(m.image.first, m.image.count) for m in frames] == [(0, 4)]
    assert frames[0].angle is not None
    assert frames[0].angle.dataset == "/angle"
    assert frames[0].angle_scale == pytest.approx(math.pi / 180)
    assert frames[0].image.swmr


def test_without_a_recorded_angle_even_steps_are_used_and_said_so() -> None:
    recorder = Recorder()
    inline_run(JITCallback(recorder), {"primary": FRAMES}, tomo={**TOMO, "angle_key": "missing"})
    frames = recorder.of(InlineFrames)
    assert np.concatenate([m.angles_rad for m in frames]) == pytest.approx(np.arange(3) * 2 * math.pi / 8)
    assert frames[0].angle_source == "plan arguments"
    [problem] = recorder.of(Problem)
    assert "'missing'" in problem.text
    assert "theta" in problem.text


def test_without_angles_or_steps_the_message_says_what_to_give() -> None:
    recorder = Recorder()
    inline_run(JITCallback(recorder), {"primary": FRAMES[:1]}, tomo={"geometry": "parallel", "angle_key": "missing"})
    assert any("n_angles_per_rotation" in problem.text for problem in recorder.of(Problem))
    assert recorder.of(RunStop)


def test_a_setting_overrides_the_runs_angle_key() -> None:
    recorder = Recorder(settings=load_settings(environment={}, intake={"angle_key": "theta"}))
    inline_run(JITCallback(recorder), {"primary": FRAMES}, tomo={**TOMO, "angle_key": "missing"})
    assert recorder.of(InlineFrames)[0].angle_source == "same stream"


def test_runs_that_are_no_tomography_are_left_alone() -> None:
    recorder = Recorder()
    callback = JITCallback(recorder)
    run = compose_run(metadata={"plan_name": "count"})
    for name, document in (("start", run.start_doc), ("stop", run.compose_stop())):
        callback(name, document)
    assert recorder.messages == []


def test_interleaved_runs_are_kept_apart() -> None:
    recorder = Recorder()
    callback = JITCallback(recorder)
    held: list[tuple[str, dict]] = []
    first = inline_run(lambda name, doc: held.append((name, doc)), {"primary": FRAMES})
    [(name, start), *rest] = held
    callback(name, start)
    second = inline_run(callback, {"primary": FRAMES[:1]})
    for name, document in rest:
        callback(name, document)
    assert [m.run_uid for m in recorder.of(InlineFrames)] == [second] + [first] * 3


def test_a_broken_document_is_reported_and_the_run_goes_on() -> None:
    recorder = Recorder()
    callback = JITCallback(recorder)

    def emit(name: str, document: dict) -> None:
        if name == "event" and document["seq_num"] == 2:
            document = {**document, "timestamps": None}
        callback(name, document)

    inline_run(emit, {"primary": FRAMES})
    assert len(recorder.of(InlineFrames)) == 2
    [problem] = recorder.of(Problem)
    assert "a document (event) could not be used" in problem.text


def test_a_callback_that_joins_in_mid_run_says_so_once() -> None:
    recorder = Recorder()
    callback = JITCallback(recorder)

    def emit(name: str, document: dict) -> None:
        if name != "start":
            callback(name, document)

    inline_run(emit, {"primary": FRAMES})
    [problem] = recorder.of(Problem)
    assert "joined" in problem.text


def test_streams_without_frames_are_left_alone() -> None:
    recorder = Recorder()
    callback = JITCallback(recorder)
    run = compose_run(metadata={"tomo": TOMO})
    callback("start", run.start_doc)
    keys = {"temperature": {"source": "PV", "dtype": "number", "shape": []}}
    descriptor = run.compose_descriptor(name="baseline", data_keys=keys)
    callback("descriptor", descriptor.descriptor_doc)
    callback("event", descriptor.compose_event(data={"temperature": 20.0}, timestamps={"temperature": 1.0}))
    assert not recorder.of(Problem)
    assert not recorder.of(InlineFrames)
