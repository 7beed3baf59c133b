"""A recipe keeps the promise between the camera's pace and the stage's."""

from __future__ import annotations

from typing import Any

import pytest

from bluesky_jit.beamline.recipe import Recipe

PLAIN: dict[str, Any] = {
    "turns": 2.5,
    "angles_per_turn": 180,
    "exposure_s": 0.01,
    "period_s": None,
    "darks": 10,
    "flats": 10,
    "flats_after": 0,
    "order": "sequential",
}


def test_counts_projections() -> None:
    assert Recipe(**PLAIN).projections == 450


def test_the_stage_meets_one_angle_in_each_period() -> None:
    turning = Recipe(**PLAIN).turning()
    assert turning.speed_deg_s == pytest.approx(2 / 0.01)
    assert turning.arc_deg == pytest.approx(900)
    assert Recipe(**{**PLAIN, "period_s": 0.02}).turning().speed_deg_s == pytest.approx(2 / 0.02)


def test_the_stage_turns_slower_for_a_camera_that_needs_longer() -> None:
    assert Recipe(**PLAIN).turning(0.04).speed_deg_s == pytest.approx(2 / 0.04)
    assert Recipe(**PLAIN).turning(0.001).speed_deg_s == pytest.approx(2 / 0.01)


@pytest.mark.parametrize("name", ["turns", "exposure_s", "period_s"])
def test_refuses_what_is_not_a_number(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Recipe(**{**PLAIN, name: float("nan")})
