"""What of a run is recorded: the last update of every turn, raw and denoised paired, and a learning curve."""

from dataclasses import replace

import event_model
import numpy as np

from bluesky_jit.messages import AnglesUsed, ImageKind, Learning, RunOpened, RunStart, RunStop, SessionStatus, Update
from bluesky_jit.publish.linked_run import LinkedRun
from bluesky_jit.tomo.geometry import ParallelGeometry
from bluesky_jit.tomo.grid import Grid

GRID = Grid.slice_xy(voxel_mm=0.1, shape=(4, 5))
STOP = RunStop(run_uid="r", time_s=99.0, exit_status="success")


def linked_run() -> LinkedRun:
    start = RunStart(run_uid="r", scan_id=3, plan_name="tomo_scan", time_s=0.0, tomo={})
    return LinkedRun(
        RunOpened(start=start, geometry=ParallelGeometry(n_u=5, n_v=4, pixel_mm=0.1), settings={}), time_s=1.0
    )


def update(number: int, turn: int, kind: ImageKind = "raw") -> Update:
    return Update(
        run_uid="r",
        number=number,
        slice_name="XY",
        kind=kind,
        grid=GRID,
        image=np.full(GRID.shape, float(number), dtype=np.float32),
        angles=AnglesUsed(count=1, first_id=0, last_id=0, arc_rad=1.0, source="same stream"),
        turn=turn,
        flats="none",
        frame_time_s=10.0 + number,
        made_time_s=10.5 + number,
    )


def events(documents):
    return [document["data"] for name, document in documents if name == "event"]


def test_nothing_is_recorded_within_a_turn():
    run = linked_run()
    assert run.update(update(0, 0)) == []
    assert run.update(update(1, 0)) == []


def test_the_end_of_a_turn_records_its_last_update():
    run = linked_run()
    run.update(update(0, 0))
    run.update(update(1, 0))
    (data,) = events(run.update(update(2, 1)))
    assert (data["update"], data["turn"], data["ready"]) == (1, 0, False)
    assert np.isnan(data["denoised"]).all()


def test_the_last_update_is_recorded_at_the_stop_and_only_once():
    run = linked_run()
    run.update(update(0, 0))
    documents = run.stop(STOP)
    assert [data["update"] for data in events(documents)] == [0]
    name, stop = documents[-1]
    assert (name, stop["num_events"]) == ("stop", {"XY": 1})


def test_a_denoised_image_that_comes_late_is_paired_with_its_own_raw():
    run = linked_run()
    for number in range(3):
        run.update(update(number, 0))
        if number:
            run.update(update(number - 1, 0, "denoised"))
    (data,) = events(run.update(update(3, 1)))
    assert (data["update"], data["ready"]) == (1, True)
    np.testing.assert_array_equal(data["raw"], data["denoised"])


def test_an_axis_moved_in_mid_run_is_on_record():
    run = linked_run()
    documents = []
    for turn, offset in enumerate((0.0, 0.0, 0.05)):
        documents += run.update(replace(update(turn, turn), axis_offset_mm=offset))
    documents += run.stop(STOP)
    assert [data["axis_offset_mm"] for data in events(documents)] == [0.0, 0.0, 0.05]


def test_learning_is_recorded_once_a_second_and_at_the_stop():
    run = linked_run()
    documents = [d for step in range(25) for d in run.status(SessionStatus(time_s=step * 0.1, run_uid="r"))]
    documents += run.stop(STOP)
    times = [document["time"] for name, document in documents if name == "event"]
    np.testing.assert_allclose(times, [0.0, 1.0, 2.0, 2.4])


def test_what_is_known_of_the_denoiser_is_on_record():
    learning = Learning(
        unseen=0.57, whole_slice=0.58, residual_variance=0.97, residual_verdict="like noise", jumps=1, chosen="auto"
    )
    [data] = events(linked_run().status(SessionStatus(time_s=1.0, run_uid="r", learning=learning)))
    assert (data["unseen"], data["whole_slice"], data["residual_variance"]) == (0.57, 0.58, 0.97)
    assert (data["residual_verdict"], data["jumps"], data["chosen"]) == ("like noise", 1, "auto")
    assert np.isnan(data["drift"])
    assert (data["refused"], data["pairs_per_s"], data["samples_per_s"]) == (0, 0.0, 0.0)


def test_the_documents_are_valid_ones():
    run = linked_run()
    documents = run.start()
    for number in range(4):
        documents += run.update(update(number, number))
    documents += run.status(SessionStatus(time_s=1.0, run_uid="r")) + run.stop(STOP)
    assert [name for name, _ in documents].count("descriptor") == 2
    for name, document in documents:
        plain = {**document, "data": {}} if name == "event" else document
        event_model.schema_validators[event_model.DocumentNames[name]].validate(plain)


def test_the_address_of_the_archive_is_recorded_without_its_query():
    start = RunStart(run_uid="r", scan_id=3, plan_name="tomo_scan", time_s=0.0, tomo={})
    settings = {"tiled": {"uri": "http://tiled:8000?api_key=secret", "api_key": "secret"}}
    geometry = ParallelGeometry(n_u=5, n_v=4, pixel_mm=0.1)
    [(_, document)] = LinkedRun(RunOpened(start=start, geometry=geometry, settings=settings), time_s=1.0).start()
    assert document["settings"]["tiled"] == {"uri": "http://tiled:8000"}


def test_images_of_other_kinds_are_not_recorded():
    run = linked_run()
    for turn in range(3):
        assert run.update(update(turn, turn, "preview")) == []


def test_what_was_corrected_in_every_frame_is_in_the_record():
    start = RunStart(run_uid="r", scan_id=3, plan_name="tomo_scan", time_s=0.0, tomo={})
    geometry = ParallelGeometry(n_u=5, n_v=4, pixel_mm=0.1)
    corrections = {"air_columns": 8, "hardening": [1.0, 0.1]}
    opened = RunOpened(start=start, geometry=geometry, settings={}, corrections=corrections)
    [(_, document)] = LinkedRun(opened, time_s=1.0).start()
    assert document["corrections"] == corrections


def test_zingers_clipped_pixels_and_the_beam_are_recorded_with_what_is_learned():
    run = linked_run()
    status = SessionStatus(time_s=5.0, clipped_fraction=0.01, zingers_per_frame=2.5, beam_level=0.97)
    (data,) = events(run.status(status))
    assert (data["clipped_fraction"], data["zingers_per_frame"], data["beam_level"]) == (0.01, 2.5, 0.97)
