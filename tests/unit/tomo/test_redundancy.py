"""Each line counts once, whatever part of a turn is measured and whichever side of the axis the detector sees."""

from dataclasses import replace

import numpy as np
import pytest
from analytic_balls import Ball, darks, flats, make_block, projections

from bluesky_jit.tomo.calibration import Calibration
from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection
from bluesky_jit.tomo.redundancy import (
    ShortScan,
    fan_angles,
    offset_weight,
    parker_weight,
    row_weight,
    shortest_arc,
    takes_short_scans,
)

TURN = 2 * np.pi
WIDE = ConeGeometry(n_u=161, n_v=4, pixel_mm=0.66, source_axis_mm=50, source_detector_mm=100)
MU = 0.02
BALLS = [Ball((1.5, -2, 0), 14, MU, soft=True), Ball((-5, -4, 0), 4, MU, soft=True)]
GRID = Grid.slice_xy(voxel_mm=0.7, shape=(44, 44))


def weight_at(geometry, scan, angle_rad, fan):
    return np.interp(fan, fan_angles(geometry, 0.0), parker_weight(geometry, angle_rad, scan))


@pytest.mark.parametrize("offset_mm", [0.0, 1.5, -3.0])
@pytest.mark.parametrize("length_deg", [240, 270, 320])
def test_the_two_weights_of_a_line_of_a_short_scan_sum_to_one(offset_mm, length_deg):
    geometry = replace(WIDE, axis_offset_mm=offset_mm)
    scan = ShortScan(start_rad=1.2, length_rad=np.deg2rad(length_deg))
    assert shortest_arc(geometry) < scan.length_rad
    rng = np.random.default_rng(2)
    limit = np.arcsin(geometry.radius_mm / np.hypot(geometry.source_axis_mm, offset_mm)) - 0.02
    for fan, turned in zip(rng.uniform(-limit, limit, 500), rng.uniform(0, TURN, 500), strict=True):
        opposite = turned + np.pi + 2 * fan
        total = weight_at(geometry, scan, turned, fan) + weight_at(geometry, scan, opposite, -fan)
        assert total == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("offset_mm", [0.0, -3.0])
def test_lines_that_meet_again_are_really_the_same(offset_mm):
    # The sign of γ: drawn in the sample's frame, with nothing but the geometry's matrices.
    geometry = replace(WIDE, axis_offset_mm=offset_mm)
    turned, column = 0.7, 120
    fan = fan_angles(geometry, 0.0)[column]
    opposite = turned + np.pi + 2 * fan
    partner = np.interp(-fan, fan_angles(geometry, 0.0), np.arange(geometry.n_u))
    there, back = geometry.matrices(np.array([turned, opposite]))
    for depth_mm in (-8.0, 3.0, 11.0):
        point = point_seen(there, column, depth_mm, turned)
        u, _, w = back @ point
        # Columns are not equal angles, hence the interpolation's part of a pixel.
        assert u / w == pytest.approx(partner, abs=2e-3)


def point_seen(matrix, column, depth_mm, turned):
    """Return the homogeneous point at lab y = depth_mm that lands on a column."""
    rows = np.array([matrix[0] - column * matrix[2], [np.sin(turned), np.cos(turned), 0, -depth_mm], [0, 0, 1, 0]])
    return np.append(np.linalg.solve(rows[:, :3], -rows[:, 3]), 1.0)


def test_short_scan_weights_fade_at_both_ends_and_are_nothing_beyond():
    scan = ShortScan(start_rad=-0.5, length_rad=np.deg2rad(260))
    assert parker_weight(WIDE, -0.5, scan).max() == pytest.approx(0)
    assert parker_weight(WIDE, -0.5 + scan.length_rad - 1e-12, scan).max() == pytest.approx(0)
    assert parker_weight(WIDE, -0.5 + scan.length_rad + 0.1, scan).max() == 0
    assert parker_weight(WIDE, -0.5 + scan.length_rad / 2, scan)[80] == 1


def test_the_shortest_arc_is_half_a_turn_and_the_fan():
    narrow = ConeGeometry(n_u=161, n_v=4, pixel_mm=0.01, source_axis_mm=5000, source_detector_mm=10000)
    assert shortest_arc(narrow) == pytest.approx(np.pi, abs=2e-4)
    assert np.rad2deg(shortest_arc(WIDE)) == pytest.approx(180 + 2 * np.rad2deg(np.arctan(80.5 * 0.33 / 50)))


def test_only_a_fan_about_an_upright_axis_that_sees_the_whole_sample_takes_short_scans():
    parallel = ParallelGeometry(n_u=161, n_v=4, pixel_mm=0.33)
    extended = replace(WIDE, detector_u_mm=20.0, extended_field=True)
    for geometry in (parallel, extended, replace(WIDE, n_v=80, axis_tilt_rad=0.1)):
        assert not takes_short_scans(geometry)
        assert shortest_arc(geometry) == geometry.period_rad
    assert row_weight(parallel, 0.0, None) is None
    assert row_weight(WIDE, 0.0, None) is None


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("kind", ["cone", "parallel"])
def test_the_two_weights_of_a_line_in_an_extended_field_sum_to_two(kind, side):
    wide = WIDE if kind == "cone" else ParallelGeometry(n_u=161, n_v=4, pixel_mm=0.33)
    geometry = replace(wide, detector_u_mm=side * 60 * wide.pixel_mm, axis_offset_mm=0.5, extended_field=True)
    weight = offset_weight(geometry, 0.0)
    if kind == "cone":
        place = fan_angles(geometry, 0.0)
    else:
        place = (np.arange(161) - geometry.u_centre) * geometry.voxel_mm - geometry.axis_offset_mm
    overlap = min(-place[0], place[-1])
    inside = np.linspace(-overlap, overlap, 50)
    total = np.interp(inside, place, weight) + np.interp(-inside, place, weight)
    np.testing.assert_allclose(total, 2, atol=2e-3)
    outside = side * place > overlap
    np.testing.assert_allclose(weight[outside], 2)
    assert weight[0 if side > 0 else -1] == pytest.approx(0)


def block_of(angles, *, geometry=WIDE, acquisition=None):
    return projections(geometry, BALLS, angles, acquisition)


def empty(geometry=WIDE, **how):
    result = FilteredBackprojection(geometry, n_projections=180, **how)
    result.push(darks(geometry))
    result.push(flats(geometry))
    return result


def bias(result):
    """Return the mean error over the middle, as a part of MU."""
    made = result.slices((GRID,))
    assert made is not None
    points = GRID.points()
    truth = sum(ball.attenuation(points) for ball in BALLS)
    return float((made.images[0] - truth)[np.linalg.norm(points[..., :2], axis=-1) < 14].mean()) / MU


def steps(degrees, *, start=0.3, direction=1, step_deg=2.0):
    return start + direction * np.deg2rad(np.arange(0, degrees, step_deg))


def push_singly(result, block):
    for n in range(len(block)):
        one = make_block("projection", block.counts[[n]], angles_rad=block.angles_rad[[n]], acquisition=[n])
        result.push(one)


@pytest.mark.parametrize("direction", [1, -1], ids=["forwards", "backwards"])
@pytest.mark.parametrize("degrees", [250, 300])
def test_a_planned_short_scan_is_weighted_as_it_comes(degrees, direction):
    result = empty(planned_arc_rad=np.deg2rad(degrees))
    block = block_of(steps(degrees, direction=direction))
    push_singly(result, block)
    assert result.complete
    assert result.warnings() == ()
    assert abs(bias(result)) < 3e-3
    # It was weighted for what it has covered: nothing is left to do.
    assert not result.settle(drained=True)


def test_a_planned_short_scan_is_not_complete_before_its_end_and_says_so():
    result = empty(planned_arc_rad=np.deg2rad(250))
    result.push(block_of(steps(200)))
    result.settle()
    assert not result.complete
    assert "cover only 200°" in result.warnings()[0]


@pytest.mark.parametrize("planned_deg", [None, 360, 320], ids=["no plan", "a turn", "more than came"])
def test_a_run_that_ends_early_is_weighted_for_what_it_covered(planned_deg):
    result = empty(planned_arc_rad=None if planned_deg is None else np.deg2rad(planned_deg))
    result.push(block_of(steps(260)))
    result.settle()
    assert not result.complete
    assert result.settle(drained=True)
    assert result.complete
    assert result.warnings() == ()
    assert abs(bias(result)) < 3e-3
    assert not result.settle(drained=True)


def test_an_arc_that_is_too_short_stays_not_quantitative_and_says_so():
    result = empty(planned_arc_rad=np.deg2rad(300))
    result.push(block_of(steps(220)))
    result.settle()
    result.settle(drained=True)
    assert not result.complete
    [text] = result.warnings()
    assert text.startswith("the projections cover only 220° of 360°: attenuation is too low by about 39%")


def test_a_run_that_goes_on_over_the_turn_is_weighted_as_a_turn():
    result = empty(planned_arc_rad=np.deg2rad(300))
    block = block_of(steps(360))
    push_singly(result, block)
    result.settle()
    assert result.complete
    whole = empty()
    whole.push(block)
    made, expected = result.slices((GRID,)), whole.slices((GRID,))
    np.testing.assert_array_equal(made.images[0], expected.images[0])


def test_lost_frames_and_an_unsteady_stage_do_not_make_a_short_scan_be_filtered_again_and_again():
    rng = np.random.default_rng(5)
    result = empty(planned_arc_rad=np.deg2rad(260))
    angles = steps(260) + rng.uniform(-0.005, 0.005, 130)
    block = block_of(angles)
    refiltered = 0
    for n in range(130):
        if n in (0, 50, 51, 129):
            continue
        one = make_block("projection", block.counts[[n]], angles_rad=block.angles_rad[[n]], acquisition=[n])
        result.push(one)
        refiltered += result.settle()
    assert refiltered <= 1
    assert result.complete
    assert abs(bias(result)) < 5e-3


@pytest.mark.parametrize("degrees", [180, 230, 270, 330])
def test_any_arc_from_half_a_turn_on_is_enough_for_a_parallel_beam(degrees):
    parallel = ParallelGeometry(n_u=161, n_v=4, pixel_mm=0.33)
    result = empty(parallel)
    result.push(block_of(steps(degrees), geometry=parallel))
    assert result.complete
    assert result.warnings() == ()
    assert abs(bias(result)) < 3e-3


@pytest.mark.parametrize("kind", ["cone", "parallel"])
def test_an_extended_field_needs_a_whole_turn(kind):
    wide = WIDE if kind == "cone" else ParallelGeometry(n_u=161, n_v=4, pixel_mm=0.33)
    extended = replace(wide, n_u=101, detector_u_mm=30 * wide.pixel_mm, extended_field=True)
    result = empty(extended)
    result.push(block_of(steps(270), geometry=extended))
    result.settle(drained=True)
    assert not result.complete
    assert "cover only 270° of 360°" in result.warnings()[0]


@pytest.mark.parametrize("kind", ["cone", "parallel"])
def test_the_axis_of_an_extended_field_can_be_moved(kind):
    wide = WIDE if kind == "cone" else ParallelGeometry(n_u=161, n_v=4, pixel_mm=0.33)
    true = replace(wide, n_u=101, detector_u_mm=30 * wide.pixel_mm, axis_offset_mm=0.6, extended_field=True)
    tuned, right = empty(replace(true, axis_offset_mm=0.0)), empty(true)
    for result in (tuned, right):
        result.push(block_of(steps(360), geometry=true))
    tuned.set_axis_offset(0.6)
    assert tuned.settle()
    made, expected = tuned.slices((GRID,)), right.slices((GRID,))
    np.testing.assert_allclose(made.images[0], expected.images[0], rtol=0, atol=2e-4 * MU)
    assert abs(bias(tuned)) < 3e-3


@pytest.mark.parametrize("when", ["before the flats", "before the projections", "at the end"])
@pytest.mark.parametrize("kind", ["cone", "parallel"])
def test_an_axis_that_moves_outwards_by_far_leaves_no_trace_at_the_rim(kind, when):
    """The slots reach further beyond the detector's short side then; with those of before the rim is a few % off."""
    wide = WIDE if kind == "cone" else ParallelGeometry(n_u=161, n_v=4, pixel_mm=0.33)
    true = replace(
        wide, n_u=101, detector_u_mm=30 * wide.pixel_mm, axis_offset_mm=-16 * wide.voxel_mm, extended_field=True
    )
    moved = FilteredBackprojection(replace(true, axis_offset_mm=0.0), n_projections=180)
    right = empty(true)
    if when == "before the flats":
        moved.set_axis_offset(true.axis_offset_mm)
    moved.push(darks(true))
    moved.push(flats(true))
    if when == "before the projections":
        moved.set_axis_offset(true.axis_offset_mm)
    rim = [Ball((0, 0, 0), 0.95 * true.radius_mm, MU)]
    for result in (moved, right):
        result.push(projections(true, rim, steps(360)))
    if when == "at the end":
        moved.set_axis_offset(true.axis_offset_mm)
    moved.settle()
    grid = Grid.slice_xy(voxel_mm=0.7, shape=(2 * int(true.radius_mm / 0.7),) * 2)
    made, expected = moved.slices((grid,)), right.slices((grid,))
    np.testing.assert_allclose(made.images[0], expected.images[0], rtol=0, atol=2e-4 * MU)
    radius = np.linalg.norm(grid.points()[..., :2], axis=-1)
    outer = (radius > 0.7 * true.radius_mm) & (radius < 0.9 * true.radius_mm)
    assert abs(float(made.images[0][outer].mean()) / MU - 1) < 3e-3


@pytest.mark.parametrize("kind", ["cone", "parallel"])
def test_between_a_move_of_the_axis_and_its_weights_an_extended_field_is_shown_as_it_was(kind):
    """Images of the new axis from the weights of the old one would be wrong by several per cent."""
    wide = WIDE if kind == "cone" else ParallelGeometry(n_u=161, n_v=4, pixel_mm=0.33)
    extended = replace(wide, n_u=101, detector_u_mm=30 * wide.pixel_mm, extended_field=True)
    result = empty(extended)
    result.push(block_of(steps(360), geometry=extended))
    before = result.slices((GRID,))
    result.set_axis_offset(5 * extended.voxel_mm)
    between, pairs = result.slices((GRID,)), result.pairs((GRID,))
    assert result.settle()
    after = result.slices((GRID,))
    np.testing.assert_array_equal(between.images[0], before.images[0])
    np.testing.assert_allclose(pairs[0, :, 0].mean(axis=0), before.images[0], rtol=0, atol=1e-5 * MU)
    offsets = [made.axis_offset_mm for made in (before, between, after)]
    assert offsets == [0, 0, 5 * extended.voxel_mm]


def test_an_axis_that_an_extended_field_does_not_see_at_every_angle_is_refused_and_stays():
    angles_rad = np.linspace(0, TURN, 8, endpoint=False)
    sway = Calibration(angles_rad=tuple(angles_rad), detector_u_mm=tuple(np.sin(angles_rad)))
    parallel = ParallelGeometry(n_u=101, n_v=4, pixel_mm=0.33, detector_u_mm=14.0, extended_field=True)
    result = empty(replace(parallel, calibration=sway))
    with pytest.raises(ValueError, match="does not see the rotation axis"):
        result.set_axis_offset(-1.6)
    assert result.geometry.axis_offset_mm == 0
