"""The rotation axis is found to a part of a pixel, and the estimate says how sure it is."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from analytic_balls import Ball, line_integrals
from axis_scans import CONE, HALF_TURN, PARALLEL, TURN, angles, scan, with_noise

from bluesky_jit.tomo.axis.estimate import TRUSTED, axis_of_scan, estimate_axis
from bluesky_jit.tomo.calibration import Calibration
from bluesky_jit.tomo.geometry import ParallelGeometry
from bluesky_jit.tomo.kernels import choose

TOOTH = Path(__file__).parents[5] / "shared" / "data" / "tooth.h5"


@pytest.fixture(scope="module")
def kernel():
    return choose("numba")


def off_px(estimate, geometry, axis_px):
    """Return by how many pixels an estimate misses the axis."""
    assert estimate.offset_mm == pytest.approx((estimate.column - geometry.u_centre) * geometry.voxel_mm)
    return estimate.offset_mm / geometry.voxel_mm - axis_px


SET_UPS = [
    pytest.param(PARALLEL, 150, TURN, id="parallel-turn"),
    pytest.param(PARALLEL, 151, TURN, id="parallel-turn-of-odd-steps"),
    pytest.param(PARALLEL, 150, HALF_TURN, id="parallel-half-turn"),
    pytest.param(PARALLEL, 151, HALF_TURN * 151 / 150, id="parallel-half-turn-with-its-end"),
    pytest.param(CONE, 150, TURN, id="cone-turn"),
    pytest.param(CONE, 170, 1.13 * HALF_TURN, id="cone-short-scan"),
]


@pytest.mark.parametrize(("geometry", "n", "arc_rad"), SET_UPS)
@pytest.mark.parametrize("axis_px", [0.0, 3.3, -21.7])
def test_without_noise_it_is_found_to_a_tenth_of_a_pixel(geometry, n, arc_rad, axis_px, kernel):
    views = angles(n, arc_rad)
    estimate = estimate_axis(scan(geometry, axis_px, views), views, geometry, kernel=kernel)
    assert abs(off_px(estimate, geometry, axis_px)) < 0.1
    assert estimate.confidence > 0.95


@pytest.mark.parametrize(("geometry", "n", "arc_rad"), SET_UPS)
def test_with_a_thousand_photons_it_is_found_to_a_quarter_of_a_pixel(geometry, n, arc_rad, kernel):
    views = angles(n, arc_rad)
    exact = scan(geometry, 3.3, views)
    for seed in range(3):
        estimate = estimate_axis(with_noise(exact, 1000, seed), views, geometry, kernel=kernel)
        assert abs(off_px(estimate, geometry, 3.3)) < 0.25
        assert estimate.trusted


@pytest.mark.parametrize("geometry", [PARALLEL, CONE], ids=["parallel", "cone"])
def test_balls_are_enough(geometry, kernel):
    set_up = replace(geometry, axis_offset_mm=5.37 * geometry.voxel_mm)
    radius = geometry.radius_mm
    balls = [
        Ball(centre=(0.4 * radius, 0.2 * radius, 0.0), radius=0.15 * radius, mu=0.5 / radius),
        Ball(centre=(-0.3 * radius, -0.5 * radius, 0.0), radius=0.1 * radius, mu=0.5 / radius),
    ]
    views = angles(150, TURN)
    rows = line_integrals(set_up, balls, views).transpose(1, 0, 2)
    assert off_px(estimate_axis(rows, views, geometry, kernel=kernel), geometry, 5.37) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(("geometry", "arc_rad"), [(PARALLEL, TURN), (PARALLEL, HALF_TURN), (CONE, TURN)])
def test_a_sample_wider_than_the_detector_does_no_harm(geometry, arc_rad, kernel):
    views = angles(150, arc_rad)
    rows = scan(geometry, -4.6, views, part_of_field=1.6)
    estimate = estimate_axis(rows, views, geometry, kernel=kernel)
    assert abs(off_px(estimate, geometry, -4.6)) < 0.1
    assert estimate.trusted


@pytest.mark.parametrize(("geometry", "arc_rad"), [(PARALLEL, TURN), (PARALLEL, HALF_TURN), (CONE, TURN)])
def test_a_beam_that_fades_and_zingers_do_no_harm(geometry, arc_rad, kernel):
    views = angles(150, arc_rad)
    rows = with_noise(scan(geometry, 3.3, views), 3000)
    fading = rows + np.linspace(0, 0.3, 150)[None, :, None]
    random = np.random.default_rng(5)
    hit = random.integers(0, fading.size, 200)
    fading.reshape(-1)[hit] -= random.uniform(0.5, 2.0, 200)
    estimate = estimate_axis(fading, views, geometry, kernel=kernel)
    assert abs(off_px(estimate, geometry, 3.3)) < 0.25
    assert estimate.trusted


def test_the_order_of_angles_does_not_matter(kernel):
    golden = np.mod(np.arange(150) * np.pi * (3 - np.sqrt(5)), TURN)
    estimate = estimate_axis(scan(PARALLEL, 3.3, golden), golden, PARALLEL, kernel=kernel)
    assert abs(off_px(estimate, PARALLEL, 3.3)) < 0.1
    assert estimate.trusted


def test_several_turns_are_one(kernel):
    views = angles(450, 3 * TURN)
    estimate = estimate_axis(scan(CONE, 3.3, views), views, CONE, kernel=kernel)
    assert abs(off_px(estimate, CONE, 3.3)) < 0.1


def test_the_offset_that_the_geometry_has_plays_no_part(kernel):
    views = angles(60, TURN)
    rows = scan(CONE, 3.3, views)
    moved = replace(CONE, axis_offset_mm=7.0)
    assert estimate_axis(rows, views, moved).column == estimate_axis(rows, views, CONE).column


def test_a_detector_beside_the_central_ray_is_allowed_for():
    """Lab x of the axis is counted from the central ray, wherever that meets the detector."""
    shifted = replace(CONE, detector_u_mm=12.0)
    views = angles(150, TURN)
    set_up = replace(shifted, axis_offset_mm=2.0)
    balls = [Ball(centre=(15.0, 5.0, 0.0), radius=4.0, mu=0.02), Ball(centre=(-8.0, 12.0, 0.0), radius=5.0, mu=0.02)]
    wide = replace(set_up, n_u=CONE.n_u + 40, detector_u_mm=0.0)
    seen = line_integrals(wide, balls, views)[..., 40:].transpose(1, 0, 2)
    estimate = estimate_axis(seen, views, shifted)
    assert estimate.offset_mm == pytest.approx(2.0, abs=0.1 * CONE.voxel_mm)


def test_measured_shifts_are_taken_out():
    views = angles(120, TURN)
    shifts_mm = 1.5 * np.sin(3 * views)
    calibration = Calibration(angles_rad=tuple(views), detector_u_mm=tuple(shifts_mm))
    wobbling = replace(PARALLEL, calibration=calibration)
    still, moved = PARALLEL.matrices(views), wobbling.matrices(views)
    columns = np.arange(PARALLEL.n_u)
    rows = scan(PARALLEL, 3.3, views)
    seen = np.stack(
        [
            [np.interp(columns - d, columns, view) for d, view in zip((moved - still)[:, 0, 3], row, strict=True)]
            for row in rows
        ]
    )
    assert off_px(estimate_axis(seen, views, wobbling), PARALLEL, 3.3) == pytest.approx(0, abs=0.15)


@pytest.mark.parametrize(("geometry", "arc_rad"), [(PARALLEL, TURN), (PARALLEL, HALF_TURN), (CONE, TURN)])
@pytest.mark.parametrize("n_u", [128, 256, 512])
def test_noise_alone_is_not_trusted(geometry, arc_rad, n_u, kernel):
    geometry = replace(geometry, n_u=n_u)
    for seed in range(6):
        air = with_noise(np.zeros((2, 150, n_u)), 1000, seed)
        estimate = estimate_axis(air, angles(150, arc_rad), geometry, kernel=kernel)
        assert estimate.confidence < 0.7
        assert estimate.reason


@pytest.mark.parametrize("photons", [5, 20, 60])
def test_confidence_is_how_often_it_is_right_within_half_a_pixel(photons, kernel):
    """The seam of half a turn in ever less light, one row of pixels: from nearly always right to mostly wrong."""
    views = angles(150, HALF_TURN)
    exact = scan(PARALLEL, 3.3, views)[:1]
    found = [estimate_axis(with_noise(exact, photons, seed), views, PARALLEL, kernel=kernel) for seed in range(16)]
    right = np.mean([abs(off_px(estimate, PARALLEL, 3.3)) < 0.5 for estimate in found])
    assert np.mean([estimate.confidence for estimate in found]) == pytest.approx(right, abs=0.25)


def test_confidence_falls_with_the_light():
    views = angles(60, TURN)
    coarse = replace(CONE, n_u=128, pixel_mm=1.2)
    exact = scan(coarse, 3.3, views)[:1]
    claims = [
        np.mean([estimate_axis(with_noise(exact, photons, seed), views, coarse).confidence for seed in range(8)])
        for photons in (1, 3, 300)
    ]
    assert claims[0] < claims[1] < claims[2]
    assert claims[2] > 0.95


@pytest.mark.parametrize(
    ("geometry", "arc_rad", "words"),
    [
        (PARALLEL, 0.8 * HALF_TURN, "turn by more than 180°"),
        (CONE, 0.7 * HALF_TURN, "turn by more than 180°"),
        (replace(PARALLEL, axis_tilt_rad=0.3), TURN, "the axis is tilted"),
    ],
)
def test_without_opposing_views_there_is_no_estimate(geometry, arc_rad, words):
    views = angles(100, arc_rad)
    estimate = estimate_axis(scan(replace(geometry, axis_tilt_rad=0.0), 3.3, views), views, geometry)
    assert estimate.confidence == 0
    assert np.isnan(estimate.offset_mm)
    assert words in estimate.reason


def test_a_few_projections_give_a_reason():
    views = angles(5, TURN)
    assert "8 are the least" in estimate_axis(np.zeros((1, 5, 256)), views, PARALLEL).reason


def test_frames_with_nan_are_left_out():
    views = angles(150, TURN)
    rows = scan(PARALLEL, 3.3, views)
    rows[:, 17] = np.nan
    estimate = estimate_axis(rows, views, PARALLEL)
    assert abs(off_px(estimate, PARALLEL, 3.3)) < 0.1


def test_a_sinogram_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(256, 150\).*give line integrals \(n_rows, n_angles, n_u\)"):
        estimate_axis(np.zeros((256, 150)), angles(150, TURN), PARALLEL)


@pytest.mark.skipif(not TOOTH.exists(), reason="the folder of real scans is not here")
@pytest.mark.parametrize("rows", [slice(0, 1), slice(1, 2), slice(0, 2)], ids=["first", "second", "both"])
def test_the_axis_of_the_tooth_is_found(rows):
    """A real half turn, whose axis is published as column 296.0."""
    with h5py.File(TOOTH) as file:
        exchange = file["exchange"]
        dark, flat = exchange["data_dark"][:].mean(axis=0), exchange["data_white"][:].mean(axis=0)
        lines = -np.log(np.maximum(exchange["data"][:] - dark, 0.5) / (flat - dark)).transpose(1, 0, 2)
        views = np.deg2rad(exchange["theta"][:])
    geometry = ParallelGeometry(n_u=lines.shape[2], n_v=2, pixel_mm=0.01)
    estimate = axis_of_scan(lines[rows], views, geometry)
    assert estimate.column == pytest.approx(296.0, abs=0.5)
    assert estimate.confidence > TRUSTED
    assert estimate.evidence == "seam of half a turn"
