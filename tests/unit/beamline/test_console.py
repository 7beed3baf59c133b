"""Plans with their devices filled in look, to people and to the queue server, like plans that need none."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from bluesky_jit.beamline import plans
from bluesky_jit.beamline.console import bound


def plan(camera: str, stage: str, *, turns: float = 1.0, geometry: Any = None) -> Iterator[tuple[Any, ...]]:
    """Turn."""
    yield camera, stage, turns, geometry


def test_fills_in_devices_and_values() -> None:
    assert list(bound(plan, "camera", "stage", geometry="cone")(turns=3)) == [("camera", "stage", 3, "cone")]


def test_values_filled_in_can_still_be_given() -> None:
    assert list(bound(plan, "camera", "stage", geometry="cone")(geometry="parallel")) == [
        ("camera", "stage", 1.0, "parallel")
    ]


def test_shows_only_what_is_left_to_give() -> None:
    left = bound(plan, "camera", "stage", geometry="cone")
    assert list(inspect.signature(left).parameters) == ["turns"]
    assert left.__doc__ == "Turn."
    assert inspect.isgeneratorfunction(left)


def test_the_scans_parameters_have_types_that_a_queue_server_can_check() -> None:
    for scan in (plans.tomo_scan, plans.tomo_step_scan):
        parameters = inspect.signature(bound(scan, 1, 2, 3, 4, geometry=None)).parameters.values()
        assert {parameter.name for parameter in parameters} >= {"turns", "angles_per_turn", "order", "md"}
        assert not any(isinstance(parameter.annotation, str) for parameter in parameters)
