"""The settings that a simulated beamline writes are settings that the package knows."""

import json

import pytest

from bluesky_jit.cli.simulated import _geometry_settings
from bluesky_jit.intake.setup import geometry_of
from bluesky_jit.settings import Settings
from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry

CONE = ConeGeometry(n_u=40, n_v=32, pixel_mm=0.5, source_axis_mm=441.4, source_detector_mm=1069.0, axis_tilt_rad=0.01)


@pytest.mark.parametrize("geometry", [CONE, ParallelGeometry(n_u=40, n_v=32, pixel_mm=0.5)])
def test_what_the_ioc_says_of_its_set_up_fits_the_settings(geometry):
    said = json.loads(json.dumps(geometry.to_metadata()))
    settings = Settings().changed({"geometry": _geometry_settings(said)})
    assert geometry_of({}, settings.geometry, (32, 40)) == geometry
