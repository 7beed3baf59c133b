"""Where points land on the detector: against points worked out by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry, geometry_from_metadata

CONE = ConeGeometry(n_u=101, n_v=61, pixel_mm=0.5, source_axis_mm=100, source_detector_mm=400)
PARALLEL = ParallelGeometry(n_u=101, n_v=61, pixel_mm=0.5)
QUARTER = np.pi / 2


def pixel(geometry, point, angle_rad=0.0):
    u, v, w = geometry.matrices(np.array([angle_rad]))[0] @ np.append(point, 1.0)
    return u / w, v / w, w


@pytest.mark.parametrize(
    ("point", "angle_rad", "expected"),
    [
        # On the axis: the centre of the detector, unit depth.
        ((0, 0, 0), 0.0, (50, 30, 1)),
        ((0, 0, 0), 1.234, (50, 30, 1)),
        # Magnified four times: 2 mm are 8 mm, 16 pixels.
        ((2, 0, 0), 0.0, (66, 30, 1)),
        ((0, 0, 2), 0.0, (50, 46, 1)),
        # Downstream of the axis by 25 mm: 125 mm from the source, magnified 3.2 times.
        ((2, 25, 0), 0.0, (50 + 2 * 3.2 / 0.5, 30, 1.25)),
        # A quarter turn anticlockwise takes +x to +y (downstream) and +y to -x.
        ((25, 0, 0), QUARTER, (50, 30, 1.25)),
        ((0, 2, 0), QUARTER, (34, 30, 1)),
        ((0, 2, 0), -QUARTER, (66, 30, 1)),
    ],
)
def test_cone_projects_a_point_where_a_ruler_says(point, angle_rad, expected):
    assert pixel(CONE, point, angle_rad) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("point", "angle_rad", "expected"),
    [
        ((2, 25, 3), 0.0, (54, 36, 1)),
        ((2, 25, 3), QUARTER, (0, 36, 1)),
        ((2, 25, 3), np.pi, (46, 36, 1)),
    ],
)
def test_parallel_beam_does_not_magnify(point, angle_rad, expected):
    assert pixel(PARALLEL, point, angle_rad) == pytest.approx(expected)


def test_an_axis_offset_moves_the_axis_along_lab_x_at_every_angle():
    for angle in (0.0, 1.0, np.pi):
        assert pixel(_moved(CONE, 0.25), (0, 0, 0), angle) == pytest.approx((52, 30, 1))
        assert pixel(_moved(PARALLEL, 0.25), (0, 0, 0), angle) == pytest.approx((50.5, 30, 1))


def _moved(geometry, offset_mm):
    return geometry_from_metadata({**geometry.to_metadata(), "axis_offset_mm": offset_mm})


@pytest.mark.parametrize("geometry", [CONE, _moved(CONE, 1.5), PARALLEL, _moved(PARALLEL, -2.0)])
def test_the_radius_is_the_largest_that_every_projection_sees(geometry):
    angles = np.linspace(0, 2 * np.pi, 721)
    matrices = geometry.matrices(angles)

    def columns(radius):
        ring = np.stack([radius * np.cos(angles), radius * np.sin(angles), 0 * angles, 1 + 0 * angles])
        u, _, w = np.moveaxis(matrices @ ring, 1, 0)
        return u / w

    inside, outside = columns(0.9995 * geometry.radius_mm), columns(1.002 * geometry.radius_mm)
    assert inside.min() > -0.5
    assert inside.max() < geometry.n_u - 0.5
    assert outside.min() < -0.5 or outside.max() > geometry.n_u - 0.5


@pytest.mark.parametrize("geometry", [CONE, PARALLEL])
def test_the_half_height_ends_at_the_detectors_edge(geometry):
    assert pixel(geometry, (0, 0, geometry.half_height_mm))[1] == pytest.approx(geometry.n_v - 0.5)


@pytest.mark.parametrize("geometry", [CONE, PARALLEL, replace(CONE, axis_offset_mm=1.5)])
def test_a_geometry_survives_its_metadata_as_records_keep_it(geometry):
    metadata = json.loads(json.dumps(geometry.to_metadata()))
    assert metadata["kind"] == geometry.kind
    assert geometry_from_metadata(metadata) == geometry


def test_a_geometry_that_cannot_be_names_value_and_remedy():
    with pytest.raises(ValueError, match=r"pixel_mm is 0: give a positive number of mm"):
        ParallelGeometry(n_u=1, n_v=1, pixel_mm=0)
    with pytest.raises(ValueError, match=r"larger source_detector_mm"):
        ConeGeometry(n_u=1, n_v=1, pixel_mm=1, source_axis_mm=10, source_detector_mm=10)
    with pytest.raises(ValueError, match=r"geometry is 'helix': give one of cone, parallel"):
        geometry_from_metadata({"kind": "helix"})
    with pytest.raises(ValueError, match=r"cannot be made from \['n_u'\]"):
        geometry_from_metadata({"kind": "cone", "n_u": 3})
