"""What start documents and descriptors of many plans tell: whether it is a tomography, and where the angle lives."""

from typing import Any

import numpy as np
import pytest
from dialect_runs import FXI_FLY_SCAN

from bluesky_jit.intake.dialects import even_steps_rad, read_monitor, read_stream, tells_tomography, tomo_of
from bluesky_jit.intake.setup import angles_per_turn_of
from bluesky_jit.settings import Settings, load_settings

DEFAULT = Settings()


def changed(**intake: Any) -> Settings:
    return load_settings(environment={}, intake=intake)


def descriptor(name: str, **data_keys: dict[str, Any]) -> dict[str, Any]:
    return {"uid": name, "name": name, "data_keys": data_keys}


PICTURE = {"dtype": "array", "shape": [4, 6]}


def test_a_runs_own_block_is_taken_as_it_is() -> None:
    assert tomo_of({"tomo": {"pixel_mm": 1.0}, "plan_name": "fly_scan"}, DEFAULT) == {"pixel_mm": 1.0}


def test_fxis_fly_scan_tells_its_speed_arc_and_energy() -> None:
    assert tomo_of(FXI_FLY_SCAN, DEFAULT) == {
        "angle_key": "zps_pi_r",
        "n_angles_per_rotation": 120,
        "start_deg": 0.0,
        "arc_deg": 180.0,
        "exposure_s": 0.05,
        "energy_kev": 8.3,
    }


def test_its_numbered_sisters_are_known_too() -> None:
    assert tomo_of({**FXI_FLY_SCAN, "plan_name": "fly_scan2"}, DEFAULT) == tomo_of(FXI_FLY_SCAN, DEFAULT)


def test_a_setting_overrides_what_a_plan_implies() -> None:
    settings = load_settings(environment={}, tomo={"angles_per_turn": 90})
    block = tomo_of(FXI_FLY_SCAN, settings)
    assert block is not None
    assert block["n_angles_per_rotation"] == 90


def test_a_plan_of_another_beamline_with_the_same_name_is_not_mistaken() -> None:
    start = {"plan_name": "fly_scan", "motors": ["x"], "plan_args": {"start": 0, "stop": 1, "num": 3}}
    assert tomo_of(start, DEFAULT) is None


@pytest.mark.parametrize("start", [{}, {"plan_name": "scan"}, {"plan_name": "count", "plan_args": "?"}, {"tomo": None}])
def test_other_runs_are_none(start: dict[str, Any]) -> None:
    assert tomo_of(start, DEFAULT) is None


def test_a_zebra_scan_to_and_fro_has_no_even_steps() -> None:
    args = {"slew_speed": 3.0, "acquisition_period": 0.1, "start_angle": 10, "end_angle": 190, "scan_mode": 2}
    block = tomo_of({"plan_name": "tomo_zfly", "plan_args": args}, DEFAULT)
    assert block is not None
    assert (block["n_angles_per_rotation"], block["start_deg"], block["arc_deg"]) == (1200, 10.0, 180.0)
    with pytest.raises(ValueError, match="swinging"):
        even_steps_rad(block, None, 0, 3)


def test_hex_runs_name_whose_darks_and_flats_they_use() -> None:
    start = {"plan_name": "tomo_flyscan", "num_points": 1801, "current_dark_flat_scan_uid": "abc"}
    block = tomo_of(start, DEFAULT)
    assert block is not None
    assert (block["dark_flat_uid"], block["n_angles_per_rotation"]) == ("abc", 3600)
    assert "half a turn is taken" in block["assumed"]


def test_hex_darks_and_flats_borrow_none_and_need_no_number_of_angles() -> None:
    start = {"plan_name": "tomo_loop", "tomo_scanning_mode": "x", "current_dark_flat_scan_uid": "an earlier one"}
    block = tomo_of(start, DEFAULT)
    assert block == {"darks_and_flats_only": True}
    assert angles_per_turn_of(block, None) > 1


@pytest.mark.parametrize(("unit", "last", "start_deg"), [("deg", 180.0, 0.0), ("rad", np.pi, 0.0)])
def test_a_named_step_scan_tells_its_steps(unit: str, last: float, start_deg: float) -> None:
    start = {"plan_name": "scan", "plan_args": {"args": ["rot", 0.0, last], "num": 61}}
    block = tomo_of(start, changed(plans=["scan"], angle_unit=unit))
    assert block is not None
    assert (block["n_angles_per_rotation"], block["n_projections"]) == (120, 61)
    assert (block["start_deg"], block["arc_deg"]) == pytest.approx((start_deg, 180.0))


def test_a_named_plan_without_steps_is_a_tomography_all_the_same() -> None:
    start = {"plan_name": "list_scan", "plan_args": {"args": ["rot", [0, 1, 5]]}}
    assert tomo_of(start, changed(plans=["list_scan"])) == {}


def test_even_steps_reach_from_end_to_end_and_begin_again_with_each_sweep() -> None:
    block = {"start_deg": 10.0, "arc_deg": -90.0}
    assert np.rad2deg(even_steps_rad(block, None, 0, 4, sweep=4)) == pytest.approx([10, -20, -50, -80])
    assert np.rad2deg(even_steps_rad(block, None, 4, 2, sweep=4)) == pytest.approx([10, -20])


@pytest.mark.parametrize(
    ("stream", "tells"),
    [
        (descriptor("flat", camera=PICTURE), True),
        (descriptor("projections", camera=PICTURE), True),
        (descriptor("primary", camera=PICTURE), False),
        (descriptor("dark", current={"dtype": "number", "shape": []}), False),
        (descriptor("alignment", camera=PICTURE), False),
    ],
)
def test_some_streams_show_that_a_run_is_a_tomography(stream: dict[str, Any], tells: bool) -> None:
    assert tells_tomography(stream) is tells


def test_a_motor_that_shifts_the_sample_is_no_angle() -> None:
    number = {"dtype": "number", "shape": []}
    motors = ["x", "rot"]
    stream = descriptor("primary", camera=PICTURE, x={**number, "units": "mm"}, rot={**number, "units": "degrees"})
    keys = read_stream(stream, {}, {"motors": motors}, DEFAULT.intake)
    assert keys is not None
    assert keys.angle == "rot"
    stream = descriptor("primary", camera=PICTURE, x=number, rot={**number, "units": "degrees"})
    keys = read_stream(stream, {}, {"motors": motors}, DEFAULT.intake)
    assert keys is not None
    assert keys.angle == "rot"
    stream = descriptor("primary", camera=PICTURE, x={**number, "units": "mm"})
    keys = read_stream(stream, {}, {"motors": motors}, DEFAULT.intake)
    assert keys is not None
    assert keys.angle == ""


def test_the_cameras_own_angle_comes_before_that_of_another_device() -> None:
    number = {"dtype": "number", "shape": []}
    stream = descriptor("primary", Angle=number, cam_image=PICTURE, cam_theta=number)
    keys = read_stream(stream, {}, {}, DEFAULT.intake)
    assert keys is not None
    assert keys.angle == "cam_theta"


def test_an_angle_without_a_unit_has_that_of_the_settings() -> None:
    stream = descriptor("primary", camera=PICTURE, theta={"dtype": "number", "shape": []})
    for unit, scale in (("deg", np.pi / 180), ("rad", 1.0)):
        keys = read_stream(stream, {}, {}, changed(angle_unit=unit).intake)
        assert keys is not None
        assert keys.angle_scale == scale


def test_an_angle_in_another_unit_is_refused_by_name() -> None:
    stream = descriptor("primary", camera=PICTURE, theta={"dtype": "number", "shape": [], "units": "mm"})
    with pytest.raises(ValueError, match="the angle's unit is 'mm'"):
        read_stream(stream, {}, {}, DEFAULT.intake)


def test_the_zebras_clock_is_no_time_stamp() -> None:
    stream = descriptor("primary", zebra_time={"shape": [61]}, Andor_image={"shape": [61, 4, 6]})
    keys = read_stream(stream, {}, {}, DEFAULT.intake)
    assert keys is not None
    assert (keys.frame_time, keys.frames_per_row) == ("", 61)


@pytest.mark.parametrize(
    ("stream", "key"),
    [
        (descriptor("rot_monitor", rot={"units": "deg"}, rot_user_setpoint={"units": "deg"}), "rot"),
        (descriptor("stage_monitor", stage_theta={}), "stage_theta"),
        (descriptor("x_monitor", x={"units": "mm"}), None),
        (descriptor("baseline", rot={"units": "deg"}, theta={"units": "deg"}), None),
        (descriptor("sensors", temperature={"units": "K"}, theta={"units": "deg"}), None),
    ],
)
def test_a_monitored_stage_is_found_by_what_it_measures(stream: dict[str, Any], key: str | None) -> None:
    found = read_monitor(stream, {}, {}, DEFAULT.intake)
    assert (found and found[0]) == key


def test_the_key_that_is_asked_for_is_found_in_any_stream_but_the_baseline() -> None:
    intake = changed(angle_key="theta").intake
    assert read_monitor(descriptor("sensors", theta={"units": "rad"}), {}, {}, intake) == ("theta", 1.0)
    assert read_monitor(descriptor("baseline", theta={"units": "rad"}), {}, {}, intake) is None
    assert read_monitor(descriptor("rot_monitor", rot={"units": "deg"}), {}, {}, intake) is None


ROW = {"dtype": "array", "shape": [1, 64]}


@pytest.mark.parametrize(
    ("keys", "named", "image"),
    [
        ({"camera": ROW}, "", "camera"),
        ({"camera": {"dtype": "array", "shape": [1, 1, 64]}}, "", "camera"),
        # A picture before a row, and before either what the run names.
        ({"spectrum": ROW, "camera": PICTURE}, "", "camera"),
        ({"camera": PICTURE, "line": ROW}, "line", "line"),
        ({"camera": PICTURE, "viewer": PICTURE}, "viewer", "viewer"),
        ({"camera": PICTURE}, "elsewhere", "camera"),
        # Columns of numbers about frames are no row of pixels.
        ({"stage": {**ROW, "units": "deg"}}, "", ""),
        ({"camera_theta": ROW, "camera_unique_id": ROW, "camera_timestamps": ROW}, "", ""),
        ({"temperature": {"dtype": "array", "shape": [64]}}, "", ""),
    ],
)
def test_the_run_names_its_frames_or_else_they_are_what_looks_like_them(
    keys: dict[str, dict[str, Any]], named: str, image: str
) -> None:
    found = read_stream(descriptor("primary", **keys), {"image_key": named}, {}, DEFAULT.intake)
    assert (found.image if found else "") == image


def test_frames_of_one_row_keep_their_shape() -> None:
    found = read_stream(descriptor("primary", camera={"dtype": "array", "shape": [5, 1, 64]}), {}, {}, DEFAULT.intake)
    assert found is not None
    assert (found.frame_shape, found.frames_per_row) == ((1, 64), 5)
