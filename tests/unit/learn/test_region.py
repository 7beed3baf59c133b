"""Cylinders and boxes that patches are taken from."""

from __future__ import annotations

import numpy as np
import pytest

from bluesky_jit.learn.region import Box, Cylinder, corners_of, field_cylinder
from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry

CYLINDER = Cylinder(radius_mm=4.0, half_height_mm=2.0, centre_mm=(1.0, -2.0, 3.0))
BOX = Box(low_mm=(-1.0, 2.0, 3.0), high_mm=(1.0, 5.0, 9.0))


@pytest.mark.parametrize("region", [CYLINDER, BOX], ids=["cylinder", "box"])
def test_points_are_drawn_uniformly_over_a_region(region):
    points = region.draw(np.random.default_rng(0), 4000)
    assert region.contains(points).all()
    assert points.mean(axis=0) == pytest.approx(np.array(region.centre_mm), abs=0.1)
    # A cylinder's x has a variance of r²/4, everything else is uniform.
    share = np.array([1 / 4, 1 / 4, 1 / 3]) if region is CYLINDER else np.full(3, 1 / 3)
    assert points.var(axis=0) == pytest.approx(share * np.square(region.half_extents_mm), rel=0.06)


def test_a_region_ends_where_it_says():
    assert CYLINDER.contains(np.array([[4.99, -2, 4.99], [5.01, -2, 3], [1, -2, 5.01], [3.9, 0.9, 3]])).tolist() == [
        True, False, False, False,
    ]  # fmt: skip
    assert BOX.contains(np.array([[0.99, 2.01, 8.99], [1.01, 3, 4], [0, 1.99, 4], [0, 3, 9.01]])).tolist() == [
        True, False, False, False,
    ]  # fmt: skip
    assert np.ptp(corners_of(BOX), axis=0).tolist() == [2, 3, 6]
    assert corners_of(CYLINDER).mean(axis=0).tolist() == [1, -2, 3]


def test_what_cannot_be_a_region_is_refused():
    with pytest.raises(ValueError, match="radius_mm is -1"):
        Cylinder(radius_mm=-1.0, half_height_mm=1.0)
    with pytest.raises(ValueError, match=r"centre_mm is .*nan.*: give three finite numbers"):
        Cylinder(radius_mm=1.0, half_height_mm=1.0, centre_mm=(0.0, float("nan"), 0.0))
    with pytest.raises(ValueError, match=r"the box from .* is empty: give x, y and z that ascend"):
        Box(low_mm=(0.0, 0.0, 3.0), high_mm=(1.0, 1.0, 2.0))


def test_the_field_is_the_cylinder_that_every_projection_sees():
    cone = ConeGeometry(n_u=192, n_v=160, pixel_mm=0.8, source_axis_mm=441.4, source_detector_mm=1069.0)
    parallel = ParallelGeometry(n_u=192, n_v=160, pixel_mm=0.33)
    rng = np.random.default_rng(0)
    for geometry in (cone, parallel):
        region = field_cylinder(geometry)
        azimuth, height = rng.uniform(0, 2 * np.pi, 200), rng.choice([-1, 1], 200) * region.half_height_mm * 0.999
        rim = 0.999 * region.radius_mm * np.array([np.cos(azimuth), np.sin(azimuth)])
        points = np.stack([*rim, height, np.ones(200)])
        u, v, w = np.moveaxis(geometry.matrices(np.linspace(0, 2 * np.pi, 90)) @ points, 1, 0)
        assert np.all((u / w > -0.5) & (u / w < geometry.n_u - 0.5))
        assert np.all((v / w > -0.5) & (v / w < geometry.n_v - 0.5))
