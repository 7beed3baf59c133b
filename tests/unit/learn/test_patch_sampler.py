"""Where patches lie."""

from __future__ import annotations

import numpy as np
import pytest

from bluesky_jit.learn.guard import Guard
from bluesky_jit.learn.patch_sampler import PatchSampler
from bluesky_jit.learn.region import Box, Cylinder
from bluesky_jit.tomo.grid import Grid

REGION = Cylinder(radius_mm=45.0, half_height_mm=36.0)
VOXEL_MM = 0.5


def orthogonal_slices(voxel_mm: float = VOXEL_MM) -> tuple[Grid, Grid, Grid]:
    across, high = round(2 * REGION.radius_mm / voxel_mm), round(2 * REGION.half_height_mm / voxel_mm)
    return (
        Grid.slice_xy(z_mm=5.0, voxel_mm=voxel_mm, shape=(across, across)),
        Grid.slice_xz(y_mm=-8.0, voxel_mm=voxel_mm, shape=(high, across)),
        Grid.slice_yz(x_mm=11.0, voxel_mm=voxel_mm, shape=(high, across)),
    )


def sampler(**changes) -> PatchSampler:
    return PatchSampler(REGION, **{"voxel_mm": VOXEL_MM, "shown": orthogonal_slices(), "seed": 1, **changes})


def many(draw, count: int) -> list[Grid]:
    return [grid for _ in range(count) for grid in draw()]


def distance_to(slice_: Grid, grid: Grid) -> float:
    """Return how far a grid's centre lies from the plane of a slice, in mm; infinite when they are not parallel."""
    normal = slice_.steps[0] / np.linalg.norm(slice_.steps[0])
    if abs(grid.steps[1:] @ normal).max() > 1e-9:
        return np.inf
    return abs(float((np.array(grid.centre) - slice_.centre) @ normal))


TILTED = (Grid.centred(centre=(3, 4, 5), x_axis=(1, 1, 0), y_axis=(-1, 1, 2), voxel_mm=0.3, shape=(1, 200, 160)),)


BOX = Box(low_mm=(-10.0, -40.0, 2.0), high_mm=(40.0, 5.0, 34.0))
ASIDE = Cylinder(radius_mm=20.0, half_height_mm=15.0, centre_mm=(15.0, -20.0, 8.0))


FLAT = Cylinder(radius_mm=40.0, half_height_mm=0.5)
PLATE = Box(low_mm=(-0.5, -30.0, -30.0), high_mm=(0.5, 30.0, 30.0))


@pytest.mark.parametrize(
    "region", [REGION, ASIDE, BOX, FLAT, PLATE], ids=["cylinder", "aside", "box", "few rows", "plate"]
)
@pytest.mark.parametrize("shown", [(), orthogonal_slices(), TILTED], ids=["nothing", "orthogonal", "tilted"])
@pytest.mark.parametrize("depth", [1, 7])
def test_training_never_touches_the_guard_and_held_out_patches_never_leave_it(region, shown, depth):
    drawn = PatchSampler(region, voxel_mm=VOXEL_MM, shown=shown, depth=depth, seed=1)
    for grid in many(drawn.train, 30):
        distances = drawn.guard.distances(grid.points())
        assert region.contains(np.array(grid.centre))
        assert np.all(distances > drawn.guard.thickness_mm / 2) or np.all(distances < -drawn.guard.thickness_mm / 2)
    for grid in many(drawn.held_out, 5):
        assert region.contains(np.array(grid.centre))
        assert np.all(abs(drawn.guard.distances(grid.points())) <= drawn.guard.thickness_mm / 2)


@pytest.mark.parametrize("shown", [(), orthogonal_slices()], ids=["nothing", "orthogonal"])
def test_patches_of_a_few_rows_are_level(shown):
    drawn = PatchSampler(FLAT, voxel_mm=VOXEL_MM, shown=shown, seed=1)
    for grid in (*drawn.train(), *drawn.held_out()):
        assert np.ptp(grid.points()[..., 2]) < 1e-9
    assert len({round(float(grid.x_step[0]), 6) for grid in drawn.train()}) > 5


@pytest.mark.parametrize("region", [ASIDE, BOX, FLAT, PLATE], ids=["aside", "box", "few rows", "plate"])
def test_the_guard_crosses_the_middle_of_any_region(region):
    guard = PatchSampler(region, voxel_mm=VOXEL_MM).guard
    assert guard.distances(np.array(region.centre_mm)) == pytest.approx(0, abs=1e-9)
    assert (
        0.05 < np.mean(abs(guard.distances(region.draw(np.random.default_rng(0), 2000))) < guard.thickness_mm / 2) < 0.4
    )


@pytest.mark.parametrize(("whole_fraction", "near"), [(0.0, 32), (0.25, 24), (0.5, 16), (1.0, 0)])
def test_any_part_of_a_batch_may_come_from_the_whole_region(whole_fraction, near):
    grids = sampler(shown=TILTED, whole_fraction=whole_fraction).train()
    assert (len(grids), sum(distance_to(TILTED[0], grid) < np.inf for grid in grids)) == (32, near)


def test_slices_much_larger_than_a_small_region_still_get_their_share():
    small = Cylinder(radius_mm=9.0, half_height_mm=9.0, centre_mm=(20.0, -15.0, 5.0))
    slices = (
        Grid.slice_xy(z_mm=5.0, voxel_mm=0.2, shape=(450, 450)),
        Grid.slice_xz(y_mm=-15.0, voxel_mm=0.2, shape=(360, 450)),
    )
    drawn = PatchSampler(small, voxel_mm=0.2, shown=slices, seed=0)
    for grids in (drawn.train() for _ in range(10)):
        assert sum(min(distance_to(slice_, grid) for slice_ in slices) < np.inf for grid in grids) == 24


@pytest.mark.parametrize("depth", [3, 5, 7])
def test_the_planes_of_a_slab_are_a_voxel_apart_along_the_slices_normal(depth):
    for grid in sampler(shown=TILTED, depth=depth).train()[:24]:
        assert grid.shape == (depth, 20, 20)
        assert np.allclose(grid.z_step, TILTED[0].z_step)
        assert np.linalg.norm(grid.z_step) == pytest.approx(0.3)


def test_a_region_that_shifts_a_little_keeps_its_guard_and_one_that_goes_away_takes_it_along():
    drawn = sampler()
    guard = drawn.guard
    nearby = Cylinder(radius_mm=40.0, half_height_mm=30.0, centre_mm=(2.0, -3.0, 1.0))
    assert not drawn.move(nearby)
    assert drawn.guard == guard
    assert all(nearby.contains(np.array(grid.centre)) for grid in drawn.train())
    away = Cylinder(radius_mm=15.0, half_height_mm=10.0, centre_mm=(20.0, 20.0, 20.0))
    assert drawn.move(away)
    assert drawn.guard.distances(np.array(away.centre_mm)) == pytest.approx(0, abs=1e-9)
    assert all(away.contains(np.array(grid.centre)) for grid in drawn.held_out())


def test_a_region_without_room_is_not_moved_to():
    drawn = sampler()
    before = drawn.region, drawn.guard
    with pytest.raises(ValueError, match="find no room"):
        drawn.move(Cylinder(radius_mm=0.5, half_height_mm=0.5))
    assert (drawn.region, drawn.guard) == before


def test_a_quarter_comes_from_the_whole_region_and_the_rest_from_near_the_slices_on_show():
    slices = orthogonal_slices()
    for grids in (sampler().train() for _ in range(20)):
        distances = np.array([[distance_to(slice_, grid) for slice_ in slices] for grid in grids])
        near = np.min(distances, axis=1) <= 10 * VOXEL_MM
        assert (len(grids), near.sum()) == (32, 24)
        assert np.all(np.isinf(distances[~near]))


def test_every_slice_on_show_gets_its_share():
    grids = many(sampler().train, 60)
    shares = [np.mean([distance_to(slice_, grid) < 10 * VOXEL_MM for grid in grids]) for slice_ in orthogonal_slices()]
    assert min(shares) > 0.15


def test_patches_near_a_slice_have_its_directions_and_voxel_size():
    grids = [grid for grid in many(sampler(shown=TILTED).train, 5) if distance_to(TILTED[0], grid) < np.inf]
    assert len(grids) == 5 * 24
    for grid in grids:
        assert np.allclose(grid.steps, TILTED[0].steps)


def test_centres_are_uniform_over_the_cylinder_where_there_is_room():
    region = Cylinder(radius_mm=100.0, half_height_mm=100.0)
    thin = Guard.across(region, thickness_mm=12.0)
    drawn = PatchSampler(region, voxel_mm=0.5, guard=thin, seed=0)
    centres = np.array([grid.centre for grid in many(drawn.train, 150)])
    x, y, z = centres.T
    assert np.quantile(np.hypot(x, y) ** 2, [0.25, 0.5, 0.75]) == pytest.approx([2500, 5000, 7500], rel=0.07)
    assert np.quantile(z, [0.25, 0.5, 0.75]) == pytest.approx([-50, 0, 50], abs=6)
    quadrants = np.bincount(2 * (x > 0) + (y > 0), minlength=4) / len(x)
    assert quadrants == pytest.approx(np.full(4, 0.25), abs=0.03)


def test_orientations_are_uniform_when_nothing_is_shown():
    region = Cylinder(radius_mm=100.0, half_height_mm=100.0)
    drawn = PatchSampler(region, voxel_mm=0.5, guard=Guard.across(region, thickness_mm=12.0), seed=0)
    steps = np.array([grid.steps for grid in many(drawn.train, 100)]) / 0.5
    assert np.einsum("nij,nkj->nik", steps, steps) == pytest.approx(np.tile(np.eye(3), (len(steps), 1, 1)), abs=1e-9)
    assert np.linalg.det(steps) == pytest.approx(np.full(len(steps), 1.0))
    # A component of a uniform direction is uniform on [-1, 1].
    for component in steps.reshape(len(steps), 9).T:
        assert np.mean(component) == pytest.approx(0, abs=0.05)
        assert np.mean(component**2) == pytest.approx(1 / 3, abs=0.03)


def test_held_out_patches_lie_in_the_slices_on_show():
    slices = orthogonal_slices()
    for grid in many(sampler().held_out, 10):
        assert min(distance_to(slice_, grid) for slice_ in slices) <= 2.5 * VOXEL_MM


def test_held_out_patches_may_lie_anywhere_in_the_guard():
    drawn = sampler()
    grids = many(lambda: drawn.held_out(anywhere=True), 20)

    assert min(distance_to(slice_, grid) for slice_ in orthogonal_slices() for grid in grids) == np.inf
    assert all(np.all(abs(drawn.guard.distances(grid.points())) <= drawn.guard.thickness_mm / 2) for grid in grids)


@pytest.mark.parametrize("z_mm", [-30, -15, 0, 15, 30])
def test_the_guard_crosses_horizontal_slices_at_every_height(z_mm):
    shown = Grid.slice_xy(z_mm=z_mm, voxel_mm=VOXEL_MM, shape=(180, 180))
    assert all(distance_to(shown, grid) <= 2.5 * VOXEL_MM for grid in sampler(shown=(shown,)).held_out())


def test_slices_that_the_guard_does_not_cross_are_judged_by_patches_parallel_to_them():
    shown = Grid.centred(centre=(-20, -20, -20), x_axis=(1, 0, 0), y_axis=(0, 1, 0), voxel_mm=0.2, shape=(1, 60, 60))
    grids = sampler(shown=(shown,)).held_out()
    assert len(grids) == 32
    assert all(np.isfinite(distance_to(shown, grid)) for grid in grids)


def test_slices_outside_the_region_leave_training_to_the_whole_of_it():
    far = Grid.slice_xy(z_mm=400.0, voxel_mm=VOXEL_MM, shape=(64, 64))
    drawn = sampler(shown=(far,))
    assert len(drawn.train()) == len(drawn.held_out()) == 32


def test_slices_on_show_may_change():
    drawn = sampler(shown=())
    drawn.show(TILTED)
    assert sum(distance_to(TILTED[0], grid) < np.inf for grid in drawn.train()) == 24


def test_a_thin_guard_is_judged_by_long_patches():
    small = Cylinder(radius_mm=16.0, half_height_mm=14.0)
    drawn = PatchSampler(small, voxel_mm=0.5)
    (nz, ny, nx), *others = {grid.shape for grid in drawn.held_out()}
    assert not others
    assert nz == 1
    assert ny < 20 < nx
    assert {grid.shape for grid in drawn.train()} == {(1, 20, 20)}


def test_the_same_seed_draws_the_same_whatever_is_held_out_in_between():
    first, second = sampler(), sampler()
    for _ in range(3):
        second.held_out()
    assert first.train() == second.train()
    assert sampler(seed=2).train() != sampler(seed=1).train()


def test_a_region_without_room_for_patches_is_refused_at_once():
    with pytest.raises(ValueError, match=r"patches of \(1, 400, 400\) points find no room .* smaller learn\.patch"):
        sampler(patch=400)
    with pytest.raises(ValueError, match=r"learn\.patch is 5"):
        sampler(patch=5)
    with pytest.raises(ValueError, match=r"whole_fraction is 1\.5"):
        sampler(whole_fraction=1.5)
    with pytest.raises(ValueError, match="a patch has 4 planes"):
        sampler(depth=4)
