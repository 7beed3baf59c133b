"""Where patches are to lie, as somebody has asked or as the sample lies."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from bluesky_jit.learn.patch_sampler import PatchSampler
from bluesky_jit.learn.region import Box, Cylinder, field_cylinder
from bluesky_jit.learn.region_finder import WINDOWS_BETWEEN, RegionFinder, explicit_region, with_room
from bluesky_jit.settings_sections import LearnSettings
from bluesky_jit.tomo.geometry import ParallelGeometry
from bluesky_jit.tomo.live import FilteredBackprojection
from tests.helpers.analytic_balls import Ball, darks, flats, projections

GEOMETRY = ParallelGeometry(n_u=48, n_v=40, pixel_mm=1.0)
FIELD = field_cylinder(GEOMETRY)
PER_TURN = 40


def finder(**settings) -> RegionFinder:
    return RegionFinder(LearnSettings(**settings), GEOMETRY, patch_mm=5.0)


class Scan:
    """Scan a ball, turn after turn, wherever it is."""

    def __init__(self) -> None:
        self.reconstructor = FilteredBackprojection(GEOMETRY, n_projections=PER_TURN, kernel="numba")
        self.reconstructor.push(darks(GEOMETRY))
        self.reconstructor.push(flats(GEOMETRY))
        self._next = 0

    def turns(self, ball: Ball, count: int = 1) -> FilteredBackprojection:
        numbers = self._next + np.arange(count * PER_TURN)
        self._next += count * PER_TURN
        angles_rad = 2 * np.pi * numbers / PER_TURN
        self.reconstructor.push(projections(GEOMETRY, [ball], angles_rad, numbers))
        return self.reconstructor


def ball_at(x: float, y: float, z: float, radius: float = 8.0) -> Ball:
    return Ball((x, y, z), radius, 0.05)


def test_until_the_sample_has_been_found_patches_come_from_all_that_is_seen():
    made = finder()
    assert made.region == FIELD
    assert not made.update(FilteredBackprojection(GEOMETRY, n_projections=PER_TURN, kernel="numba"))


def test_the_region_is_around_the_sample_and_follows_it_when_it_has_moved(caplog):
    made, scan = finder(), Scan()
    with caplog.at_level(logging.INFO, logger="bluesky_jit.learn.region_finder"):
        assert made.update(scan.turns(ball_at(5, 0, -6)))
    told = [record.getMessage() for record in caplog.records if record.name == "bluesky_jit.learn.region_finder"]
    assert len(told) == 1
    assert told[0].startswith("patches come from around the sample: radius ")
    assert made.region.centre_mm == pytest.approx((5, 0, -6), abs=1.0)
    assert made.region.half_extents_mm == pytest.approx((8, 8, 8), abs=2.0)
    first = made.region
    assert not made.update(scan.turns(ball_at(-8, 3, 4), WINDOWS_BETWEEN - 1))
    assert made.update(scan.turns(ball_at(-8, 3, 4)))
    assert made.region.centre_mm == pytest.approx((-8, 3, 4), abs=1.0)
    assert made.region != first


def test_a_sample_that_hardly_moves_leaves_the_region_where_it_is():
    made, scan = finder(), Scan()
    made.update(scan.turns(ball_at(0, 0, 0)))
    first = made.region
    assert not made.update(scan.turns(ball_at(0.4, 0, 0.3), WINDOWS_BETWEEN))
    assert made.region == first


def test_after_a_jump_the_sample_is_looked_for_at_once():
    made, scan = finder(), Scan()
    made.update(scan.turns(ball_at(5, 0, -6)))
    scan.turns(ball_at(-8, 3, 4))
    assert not made.update(scan.reconstructor)
    made.look_again()
    assert made.update(scan.reconstructor)


def test_a_sample_that_is_taken_out_leaves_all_that_is_seen():
    made, scan = finder(), Scan()
    made.update(scan.turns(ball_at(0, 0, 0)))
    assert made.update(scan.turns(Ball((0, 0, 0), 1.0, 0.0), WINDOWS_BETWEEN))
    assert made.region == FIELD


def test_settings_choose_the_region():
    assert finder(region="field").region == FIELD
    assert finder(region="cylinder", region_mm=(10.0, -4.0, 12.0)).region == Cylinder(
        radius_mm=10.0, half_height_mm=8.0, centre_mm=(0.0, 0.0, 4.0)
    )


def test_looking_for_the_sample_says_nothing_of_kernels(caplog):
    made, scan = finder(), Scan()
    scan.turns(ball_at(5, 0, -6))
    # The scan's own kernel was told of, where other tests have left the log at that level.
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="bluesky_jit.tomo.kernels"):
        assert made.update(scan.reconstructor)
    assert [record for record in caplog.records if record.name == "bluesky_jit.tomo.kernels"] == []


def test_a_region_that_was_asked_for_stays_wherever_the_sample_is():
    made = finder(region="box", region_mm=(-10, -10, -10, 10, 5, 0))
    assert made.region == Box(low_mm=(-10, -10, -10), high_mm=(10, 5, 0))
    assert not made.update(Scan().turns(ball_at(5, 0, -6), 2))
    assert made.region == Box(low_mm=(-10, -10, -10), high_mm=(10, 5, 0))


@pytest.mark.parametrize(
    ("kind", "numbers_mm", "words"),
    [
        ("cylinder", (10.0, 4.0, -4.0), "its low end is not below its high end"),
        ("cylinder", (10.0, 4.0), "a cylinder takes 3: radius, low end, high end"),
        ("cylinder", (-1.0, -4.0, 4.0), "radius_mm is -1"),
        ("cylinder", (30.0, -4.0, 4.0), "reaches 30 mm from the axis and 4 mm up or down, and all projections see 24"),
        ("box", (-20.0, -20.0, 0.0, 20.0, 20.0, 5.0), "this box reaches 28.28 mm from the axis"),
        ("box", (-2.0, -2.0, 0.0, 2.0, 2.0, 25.0), "and 25 mm up or down"),
        ("box", (2.0, -2.0, 0.0, -2.0, 2.0, 5.0), "the box from .* is empty"),
        ("ball", (2.0,), "learn.region is 'ball': give one of sample, field, cylinder, box"),
    ],
)
def test_what_is_no_region_or_is_not_seen_is_refused(kind, numbers_mm, words):
    with pytest.raises(ValueError, match=words):
        explicit_region(kind, numbers_mm, GEOMETRY)


@pytest.mark.parametrize("centre_mm", [(0.0, 0.0, 0.0), (20.0, -10.0, 15.0), (0.0, 22.0, -19.0)])
def test_a_tiny_sample_is_given_room_for_patches_within_what_is_seen(centre_mm):
    tiny = Cylinder(radius_mm=0.7, half_height_mm=0.4, centre_mm=centre_mm)
    roomy = with_room(tiny, 5.0, FIELD)
    assert roomy.half_extents_mm == (5.0, 5.0, 5.0)
    assert np.hypot(*roomy.centre_mm[:2]) + 5.0 <= FIELD.radius_mm + 1e-9
    assert abs(roomy.centre_mm[2]) + 5.0 <= FIELD.half_height_mm + 1e-9
    sampler = PatchSampler(roomy, voxel_mm=0.25, patch=20)
    assert len(sampler.train()) == len(sampler.held_out()) == 32
    assert with_room(replace(tiny, radius_mm=6.0, centre_mm=(0.0, 0.0, 0.0)), 100.0, FIELD) == FIELD
