"""Where the sample is, found in few photons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bluesky_jit.learn.region import Cylinder, field_cylinder
from bluesky_jit.learn.sample import find_sample
from bluesky_jit.messages import FrameKind, ProjectionBlock
from bluesky_jit.tomo.geometry import ConeGeometry, Geometry, ParallelGeometry
from bluesky_jit.tomo.live import FilteredBackprojection
from bluesky_jit.tomo.overview import POINTS
from sim_devices.phantom import experiment
from sim_devices.physics import Detector, DetectorPhysics
from tests.helpers.analytic_balls import Ball, line_integrals

CONE = ConeGeometry(n_u=96, n_v=80, pixel_mm=1.6, source_axis_mm=441.4, source_detector_mm=1069.0)
PARALLEL = ParallelGeometry(n_u=128, n_v=64, pixel_mm=0.5)
GEOMETRIES = pytest.mark.parametrize("geometry", [CONE, PARALLEL], ids=["cone", "parallel"])
ANGLES_RAD = 2 * np.pi * np.arange(100) / 100


def measured(
    geometry: Geometry,
    integrals: np.ndarray,
    *,
    photons: float,
    angles_rad: np.ndarray = ANGLES_RAD,
    flats: int = 20,
    seed: int = 0,
) -> FilteredBackprojection:
    """Expose line integrals (n, n_v, n_u) with the simulated detector and all that is wrong with it."""
    detector = Detector(DetectorPhysics(photons=photons), geometry.n_v, geometry.n_u, seed=seed)
    made = FilteredBackprojection(geometry, n_projections=len(integrals), kernel="numba")
    empty = np.zeros((geometry.n_v, geometry.n_u))
    blanks: tuple[tuple[FrameKind, bool], ...] = (("dark", False), ("flat", True))
    for kind, beam in blanks:
        frames = [detector.expose(empty, time_s=0.0, beam=beam, exposure_s=0.02) for _ in range(flats)]
        made.push(block(kind, np.stack(frames), np.full(flats, np.nan)))
    frames = [detector.expose(lines, time_s=0.0, beam=True, exposure_s=0.02) for lines in integrals]
    made.push(block("projection", np.stack(frames), angles_rad))
    return made


def block(kind: FrameKind, counts: np.ndarray, angles_rad: np.ndarray) -> ProjectionBlock:
    numbers = np.arange(len(counts))
    return ProjectionBlock(
        run_uid="",
        kind=kind,
        counts=counts,
        acquisition=numbers,
        unique_ids=numbers,
        frame_times_s=0.02 * numbers,
        received_times_s=0.02 * numbers,
        angles_rad=angles_rad,
        angle_source="same stream",
    )


def jar_integrals(geometry: Geometry, part: float) -> tuple[np.ndarray, float, float]:
    """Return projections of the simulated jar in a part of the field, its outer radius and half height, in mm."""
    radius_mm, half_height_mm = (part * size for size in geometry.cylinder_mm)
    phantom = experiment("A", seed=5, radius_mm=radius_mm, half_height_mm=half_height_mm)
    integrals = np.stack([phantom.line_integrals(geometry, float(angle), 10.0) for angle in ANGLES_RAD])
    return integrals, 0.92 * radius_mm, 0.84 * half_height_mm


def voxel_mm(geometry: Geometry) -> float:
    return 2 * geometry.radius_mm / POINTS


def found_in(geometry: Geometry, balls: list[Ball], *, photons: float) -> Cylinder:
    found = find_sample(measured(geometry, line_integrals(geometry, balls, ANGLES_RAD), photons=photons))
    assert found is not None
    return found


@GEOMETRIES
@pytest.mark.parametrize("photons", [10, 600])
def test_a_jar_is_found_to_a_fraction_of_the_field_however_few_the_photons(geometry, photons):
    integrals, radius_mm, half_height_mm = jar_integrals(geometry, 0.5)
    found = find_sample(measured(geometry, integrals, photons=photons))
    assert found is not None
    # To two points of the overview of 64: a thirtieth of the field.
    assert found.radius_mm == pytest.approx(radius_mm, abs=2 * voxel_mm(geometry))
    assert found.half_height_mm == pytest.approx(half_height_mm, abs=2 * voxel_mm(geometry))
    assert found.centre_mm == pytest.approx((0, 0, 0), abs=voxel_mm(geometry))


@GEOMETRIES
def test_a_jar_that_fills_most_of_the_field_is_found_within_it(geometry):
    integrals, radius_mm, half_height_mm = jar_integrals(geometry, 1.0)
    field = field_cylinder(geometry)
    found = find_sample(measured(geometry, integrals, photons=15))
    assert found is not None
    assert radius_mm - voxel_mm(geometry) < found.radius_mm <= field.radius_mm
    assert found.half_height_mm == pytest.approx(half_height_mm, abs=2 * voxel_mm(geometry))


@GEOMETRIES
@pytest.mark.parametrize("photons", [15, 600])
def test_a_small_ball_far_from_the_axis_is_found_where_it_is(geometry, photons):
    field = field_cylinder(geometry)
    radius_mm = 0.2 * field.radius_mm
    centre = (0.4 * field.radius_mm, -0.2 * field.radius_mm, 0.3 * field.half_height_mm)
    found = found_in(geometry, [Ball(centre, radius_mm, 2 / field.radius_mm)], photons=photons)
    assert found.centre_mm == pytest.approx(centre, abs=voxel_mm(geometry))
    assert found.radius_mm == pytest.approx(radius_mm, abs=2 * voxel_mm(geometry))
    assert found.half_height_mm == pytest.approx(radius_mm, abs=2 * voxel_mm(geometry))


@pytest.mark.parametrize("photons", [15, 600])
def test_several_bodies_are_all_inside_dense_ones_in_light_ones_too(photons):
    size = PARALLEL.radius_mm
    apart = [Ball((0.5 * size, 0, 0.2 * size), 0.15 * size, 2 / size), Ball((-0.3 * size, 0, 0), 0.1 * size, 3 / size)]
    found = found_in(PARALLEL, apart, photons=photons)
    assert found.centre_mm[0] == pytest.approx(0.125 * size, abs=voxel_mm(PARALLEL))
    assert found.radius_mm == pytest.approx(0.525 * size, abs=2 * voxel_mm(PARALLEL))
    metal = [Ball((0, 0, 0), 0.5 * size, 0.5 / size), Ball((0.2 * size, 0, 0), 0.08 * size, 8 / size)]
    assert found_in(PARALLEL, metal, photons=photons).radius_mm == pytest.approx(0.5 * size, abs=2 * voxel_mm(PARALLEL))


@GEOMETRIES
def test_a_sample_wider_than_the_field_fills_it(geometry):
    size = geometry.radius_mm
    integrals = line_integrals(geometry, [Ball((0, 0, 0), 1.5 * size, 1 / size)], ANGLES_RAD)
    assert find_sample(measured(geometry, integrals, photons=15)) == field_cylinder(geometry)


def test_in_an_extended_field_the_whole_of_a_wide_sample_is_found():
    geometry = replace(PARALLEL, extended_field=True, axis_offset_mm=20.0)
    half_field, size = PARALLEL.radius_mm - 20.0, geometry.radius_mm
    assert size > 3 * half_field
    integrals = line_integrals(geometry, [Ball((0, 0, 0), 0.6 * size, 1 / size)], ANGLES_RAD)
    found = find_sample(measured(geometry, integrals, photons=20))
    assert found is not None
    assert found.radius_mm == pytest.approx(0.6 * size, abs=2 * voxel_mm(geometry))
    assert found.centre_mm == pytest.approx((0, 0, 0), abs=voxel_mm(geometry))


def test_a_detector_of_two_rows_shows_where_the_sample_is_too():
    geometry = ParallelGeometry(n_u=256, n_v=2, pixel_mm=0.5)
    integrals = line_integrals(geometry, [Ball((10.0, -5.0, 0.0), 20.0, 0.02)], ANGLES_RAD)
    found = find_sample(measured(geometry, integrals, photons=200))
    assert found is not None
    assert found.centre_mm == pytest.approx((10, -5, 0), abs=voxel_mm(geometry))
    assert found.radius_mm == pytest.approx(20.0, abs=2 * voxel_mm(geometry))
    assert found.half_height_mm == field_cylinder(geometry).half_height_mm


def test_half_a_turn_of_a_parallel_beam_is_enough():
    angles_rad = ANGLES_RAD / 2
    integrals = line_integrals(PARALLEL, [Ball((4.0, 0, 0), 8.0, 0.03)], angles_rad)
    found = find_sample(measured(PARALLEL, integrals, photons=50, angles_rad=angles_rad))
    assert found is not None
    assert found.centre_mm == pytest.approx((4, 0, 0), abs=voxel_mm(PARALLEL))
    assert found.radius_mm == pytest.approx(8.0, abs=2 * voxel_mm(PARALLEL))


@GEOMETRIES
@pytest.mark.parametrize(("photons", "flats"), [(10, 10), (100, 2)])
def test_without_a_sample_there_is_none(geometry, photons, flats):
    nothing = np.zeros((len(ANGLES_RAD), geometry.n_v, geometry.n_u))
    scan = measured(geometry, nothing, photons=photons, flats=flats)
    assert find_sample(scan) is None


def test_before_anything_has_been_measured_there_is_none():
    scan = FilteredBackprojection(PARALLEL, n_projections=20, kernel="numba")
    assert find_sample(scan) is None
