"""The PV table: one list, told the same way everywhere."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bluesky_jit.messages import AnglesUsed, Learning, RunOpened, RunStart, SessionStatus, Update
from bluesky_jit.publish import table
from bluesky_jit.tomo.geometry import ConeGeometry
from bluesky_jit.tomo.grid import Grid

ROOT = Path(__file__).parents[3]
OPENED = RunOpened(
    start=RunStart(run_uid="r", scan_id=1, plan_name="tomo_scan", time_s=0.0, tomo={}),
    geometry=ConeGeometry(n_u=80, n_v=64, pixel_mm=0.2, source_axis_mm=100, source_detector_mm=200),
    settings={},
)


def read(name, status, opened=None):
    reading = table.reading(table.row(name), status, opened)
    assert reading is not None
    return reading


STATUS = SessionStatus(time_s=1.0, state="running", axis_offset_mm=0.05, learning=Learning(step=7, accuracy=0.6))


def test_the_reference_page_agrees_with_the_table():
    assert (ROOT / "docs/reference/pvs.md").read_text() == table.markdown("JIT:"), (
        "run: .venv/bin/python -m bluesky_jit.publish.table > docs/reference/pvs.md"
    )


def test_every_row_has_a_name_of_its_own_and_a_help_text():
    names = [r.name for r in table.ROWS]
    assert len(set(names)) == len(names)
    assert all(r.help for r in table.ROWS)
    for names in (table.ca_names("P:"), table.pva_names("P:")):
        assert len(set(names)) == len(names)


def test_a_state_and_its_run_are_posted_after_what_they_speak_of():
    # Sinks post in the table's order: who sees the uid and "idle" may read the run's counts at once.
    assert [row.name for row in table.rows("scalar")][-2:] == ["ReconStatus", "RunUid"]


def test_every_scalar_can_be_read_from_a_status_in_its_type():
    types = {"float": float, "int": int, "bool": bool, "str": str, "text": str}
    for row in table.rows("scalar"):
        reading = table.reading(row, STATUS, OPENED)
        assert reading is not None, row.name
        assert isinstance(reading.value, types[row.type]), row.name


def test_dotted_sources_reach_into_learning():
    assert read("Learning:Step", STATUS) == (7, "NO_ALARM")


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("Learning:HeldOut", "held_out", 0.56),
        ("Learning:Unseen", "unseen", 0.57),
        ("Learning:WholeSlice", "whole_slice", 0.58),
        ("Learning:ResidualVariance", "residual_variance", 0.97),
        ("Learning:ResidualCorrelation", "residual_correlation", -0.02),
        ("Learning:ResidualVerdict", "residual_verdict", "the residual looks like noise"),
        ("Learning:Drift", "drift", 0.003),
        ("Learning:Jumps", "jumps", 2),
        ("Learning:Refused", "refused", 3),
        ("Learning:Chosen", "chosen", "auto chose fast: it is best"),
        ("Learning:Buffered", "buffered", 640),
        ("Learning:PairsPerSecond", "pairs_per_s", 900.0),
        ("Learning:SamplesPerSecond", "samples_per_s", 15_000.0),
    ],
)
def test_every_figure_of_learning_has_a_pv(name, field, value):
    status = replace(STATUS, learning=Learning(**{field: value}))
    assert read(name, status) == (value, "NO_ALARM")


def test_a_flush_is_momentary_and_takes_0_or_1():
    line = table.row("Learning:Flush")
    assert line.momentary
    assert table.checked(line, 1, OPENED) is True
    with pytest.raises(ValueError, match="give 0 or 1"):
        table.checked(line, 2, OPENED)


def test_center_is_the_column_of_the_axis():
    value, _ = read("Center", STATUS, OPENED)
    u, _, w = OPENED.geometry.matrices(np.array([0.0]))[0] @ [0, 0, 0, 1]
    assert value == pytest.approx(u / w + 0.05 / 0.1)
    assert math.isnan(read("Center", STATUS, None).value)


@pytest.mark.parametrize(("state", "severity"), [("running", "NO_ALARM"), ("stale", "MINOR"), ("failed", "INVALID")])
def test_live_values_carry_the_severity_of_the_state(state, severity):
    status = replace(STATUS, state=state)
    assert read("Learning:Accuracy", status).severity == severity
    assert table.image_severity(status) == severity


def test_a_failed_session_is_a_major_alarm_on_the_heartbeat():
    assert read("ServerRunning", STATUS) == (True, "NO_ALARM")
    assert read("ServerRunning", replace(STATUS, state="failed")) == (False, "MAJOR")


def test_a_silent_session_is_shown_as_failed_and_says_what_to_do():
    shown = table.silent(STATUS, 9.0)
    assert (shown.state, shown.severity, shown.time_s) == ("failed", "MAJOR", 9.0)
    assert "start it again" in shown.message


def test_lost_frames_are_a_minor_alarm():
    assert read("FramesLost", STATUS).severity == "NO_ALARM"
    assert read("FramesLost", replace(STATUS, frames_lost=1)).severity == "MINOR"


def test_slice_positions_are_limited_to_what_every_projection_sees():
    assert table.limits(table.row("XY:Position"), OPENED) == pytest.approx((-3.2, 3.2))
    radius = OPENED.geometry.radius_mm
    assert table.limits(table.row("YZ:Position"), OPENED) == pytest.approx((-radius, radius))
    assert table.checked(table.row("XY:Position"), "3.1", OPENED) == 3.1


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("XY:Position", 3.3, "outside -3.2 to 3.2"),
        ("XY:Position", "high", "give a number"),
        ("AxisOffset", math.nan, "give a number"),
        ("Learning:Pause", 2, "give 0 or 1"),
        ("Learning:Step", 1, "read-only"),
    ],
)
def test_a_control_refuses_what_does_not_fit_and_names_the_remedy(name, value, remedy):
    with pytest.raises(ValueError, match=remedy):
        table.checked(table.row(name), value, OPENED)


def test_an_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(KeyError, match="XY:Raw"):
        table.row("XY:Cooked")


@pytest.mark.parametrize(("kind", "name"), [("raw", "XZ:Raw"), ("denoised", "XZ:Denoised"), ("preview", "Preview")])
def test_an_update_finds_its_image(kind, name):
    update = Update(
        run_uid="r",
        number=1,
        slice_name="XZ",
        kind=kind,
        grid=Grid.slice_xz(voxel_mm=0.1, shape=(4, 5)),
        image=np.zeros((1, 4, 5), np.float32),
        angles=AnglesUsed(count=1, first_id=0, last_id=0, arc_rad=1.0, source="same stream"),
        turn=0,
        flats="this run",
        frame_time_s=0.0,
        made_time_s=0.0,
    )
    assert table.image_name(update) == name
    assert table.row(name).kind == "image"
