"""The simulated beamline is set up by options, and says in one line what is wrong with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sim_devices.ioc import make_physics, parse_arguments
from sim_devices.physics import DetectorPhysics

pytestmark = pytest.mark.system


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--source-axis-mm", "2000", "give a larger source_detector_mm"),
        ("--max-rate", "0", "give a positive number"),
        ("--physics", "glow=1", "there is no physics setting 'glow': give one of photons, "),
        ("--physics", "hard_fraction=0.5", "hard_fraction is 0.5: the simulated beam has one energy"),
    ],
)
def test_a_set_up_that_makes_no_sense_ends_with_one_line(option: str, value: str, message: str, tmp_path: Path):
    command = [sys.executable, "-m", "sim_devices.ioc", "--directory", str(tmp_path), option, value]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_physics_options_set_the_detector_and_photons_goes_with_them():
    options = parse_arguments(["--photons", "300", "--physics", "lag=0.1", "--physics", "dead_pixels=0.02"])
    assert make_physics(options) == DetectorPhysics(photons=300, lag=0.1, dead_pixels=0.02)
    assert make_physics(parse_arguments([])) == DetectorPhysics()
