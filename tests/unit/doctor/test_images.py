"""The camera's image over pvAccess, from a server in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from p4p.nt import NTNDArray, NTScalar
from p4p.server import Server
from p4p.server.thread import SharedPV

from bluesky_jit.doctor.finding import Finding
from bluesky_jit.doctor.images import image_name, look
from bluesky_jit.settings import load_settings

PREFIX = "DOCTOR:IMAGES:"


def image(**attributes: float) -> Any:
    return NTNDArray().wrap(np.zeros((6, 8), np.uint16), attrib=attributes)


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    packed = image(Angle=1.0)
    packed["codec.name"] = "lz4"
    pvs = {
        "good": SharedPV(initial=image(Angle=1.0, FrameType=2)),
        "bare": SharedPV(initial=image()),
        "packed": SharedPV(initial=packed),
        "scalar": SharedPV(nt=NTScalar("d"), initial=1.0),
    }
    with Server(providers=[{PREFIX + name: pv for name, pv in pvs.items()}]):
        yield


def found_at(pv: str, timeout_s: float = 30.0, **intake: Any) -> Finding:
    [found] = look(load_settings(environment={}, intake={"pva": pv, **intake}), timeout_s=timeout_s)
    return found


def test_a_frame_that_comes_is_fine() -> None:
    found = found_at(PREFIX + "good")
    assert (found.verdict, found.text) == (
        "fine",
        f"{PREFIX}good brings frames of 6×8 with Angle, FrameType, ColorMode",
    )
    assert found_at(PREFIX + "bare").verdict == "fine"


def test_the_attribute_of_the_settings_must_be_there() -> None:
    assert found_at(PREFIX + "good", pva_angle="Angle").verdict == "fine"
    found = found_at(PREFIX + "good", pva_angle="Theta")
    assert (found.verdict, "no attribute 'Theta' (intake.pva_angle)" in found.text) == ("problem", True)


def test_frames_that_are_packed_are_told() -> None:
    assert (found_at(PREFIX + "packed").verdict, "lz4" in found_at(PREFIX + "packed").text) == ("warning", True)


def test_what_is_no_image_is_a_problem() -> None:
    found = found_at(PREFIX + "scalar")
    assert (found.verdict, "is no image (NTNDArray) but epics:nt/NTScalar" in found.text) == ("problem", True)


def test_an_image_that_does_not_come_is_a_problem_only_where_it_was_asked_for() -> None:
    assert found_at(PREFIX + "nobody", timeout_s=0.2).verdict == "problem"
    [found] = look(load_settings(environment={}, beamline={"camera": PREFIX, "pva": "nobody"}), timeout_s=0.2)
    assert (found.verdict, "Frames come from files until then" in found.text) == ("warning", True)


def test_the_image_is_the_one_of_the_settings() -> None:
    def name(**settings: Any) -> str:
        return image_name(load_settings(environment={}, **settings))

    camera = {"camera": "C:", "pva": "Pva1:Image"}
    assert name(beamline=camera) == "C:Pva1:Image"
    assert name(beamline=camera, intake={"pva": "X"}) == "X"
    assert name(beamline=camera, intake={"pva": "off"}) == name(beamline={"camera": "C:", "pva": ""}) == ""
    [found] = look(load_settings(environment={}, intake={"pva": "off"}))
    assert found.verdict == "fine"
