"""The phantom: projections and slices tell of one and the same physical sample, at any time, from any angle."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from sim_devices.materials import Material
from sim_devices.phantom import CENTRE_LINE_INTEGRAL, STYLES, experiment

RADIUS_MM, HALF_HEIGHT_MM = 30.0, 25.0
CONE = ConeGeometry(n_u=24, n_v=20, pixel_mm=5.0, source_axis_mm=300.0, source_detector_mm=600.0)
PARALLEL = ParallelGeometry(n_u=24, n_v=20, pixel_mm=2.5)


def make(name="A", seed=1, **changes):
    size = {"radius_mm": RADIUS_MM, "half_height_mm": HALF_HEIGHT_MM, **changes}
    return experiment(name, seed=seed, **size)


def whole(n, *, radius_mm=RADIUS_MM, half_height_mm=HALF_HEIGHT_MM):
    """Return a lattice of n³ points over the whole field of view, faces included."""
    steps = np.diag([2 * radius_mm, 2 * radius_mm, 2 * half_height_mm]) / (n - 1)
    return Grid(
        origin=(-radius_mm, -radius_mm, -half_height_mm),
        x_step=tuple(steps[0]),
        y_step=tuple(steps[1]),
        z_step=tuple(steps[2]),
        shape=(n, n, n),
    )


def ray_in_sample(geometry, v, u, angle_rad):
    """Return a point and the direction of a pixel's ray in the sample's frame, from the projection matrix alone."""
    (uw, vw, w) = geometry.matrices(np.array([angle_rad]))[0]
    # The points of a ray keep (uw − u·w)·p = 0 and (vw − v·w)·p = 0: two planes.
    planes = np.stack([uw - u * w, vw - v * w])
    direction = np.cross(planes[0, :3], planes[1, :3])
    point = np.linalg.lstsq(planes[:, :3], -planes[:, 3], rcond=None)[0]
    return point, direction / np.linalg.norm(direction)


def sampled_line_integral(phantom, geometry, v, u, angle_rad, time_s, step_mm=0.004):
    """Integrate the slice truth along a pixel's ray, point by point."""
    point, direction = ray_in_sample(geometry, v, u, angle_rad)
    reach_mm = 1.3 * np.hypot(RADIUS_MM, HALF_HEIGHT_MM) + np.linalg.norm(point)
    n = int(2 * reach_mm / step_mm)
    line = Grid(
        origin=tuple(point + (0.5 * step_mm - reach_mm) * direction),
        x_step=tuple(step_mm * direction),
        y_step=(0, 0, 0),
        z_step=(0, 0, 0),
        shape=(1, 1, n),
    )
    return float(phantom.attenuation(line, time_s).sum(dtype=np.float64)) * step_mm


@pytest.mark.parametrize("name", ["A", "B"])
@pytest.mark.parametrize("geometry", [CONE, PARALLEL], ids=["cone", "parallel"])
@pytest.mark.parametrize("axis_offset_mm", [0.0, 1.7])
def test_line_integrals_agree_with_numerical_integration_of_the_slices(name, geometry, axis_offset_mm):
    geometry = replace(geometry, axis_offset_mm=axis_offset_mm)
    phantom = make(name)
    rng = np.random.default_rng(5)
    seen = 0
    for angle_rad, time_s in [(0.0, 0.0), (0.7, 12.5), (2.9, 111.0), (-4.4, 1000.0)]:
        image = phantom.line_integrals(geometry, angle_rad, time_s)
        assert image.shape == (geometry.n_v, geometry.n_u)
        assert image.dtype == np.float32
        for v, u in zip(rng.integers(0, geometry.n_v, 12), rng.integers(0, geometry.n_u, 12), strict=True):
            expected = sampled_line_integral(phantom, geometry, v, u, angle_rad, time_s)
            assert image[v, u] == pytest.approx(expected, abs=0.003)
            seen += expected > 0.5
    assert seen > 20


def test_central_ray_above_the_ground_takes_what_is_asked_of_a_jar_of_any_size():
    geometry = ParallelGeometry(n_u=3, n_v=401, pixel_mm=0.1)
    for factor in (0.02, 1.0, 7.0):
        phantom = make(radius_mm=factor * RADIUS_MM, half_height_mm=factor * HALF_HEIGHT_MM)
        still = replace(phantom, lanes=replace(phantom.lanes, style=replace(phantom.lanes.style, presence=0.0)))
        scaled = replace(geometry, pixel_mm=factor * 0.1)
        rows = still.line_integrals(scaled, 0.3, 1e6)[:, 1]
        # Fluid and nothing else is what most rows see.
        assert np.median(rows) == pytest.approx(CENTRE_LINE_INTEGRAL, rel=1e-5)
        assert rows.max() < 3


@pytest.mark.parametrize("size", [(30.0, 25.0), (2.0, 5.0), (40.0, 12.0)])
@pytest.mark.parametrize("name", ["A", "B"])
def test_every_point_is_of_one_material_at_all_times(name, size):
    radius_mm, half_height_mm = size
    lattice = whole(45, radius_mm=radius_mm, half_height_mm=half_height_mm)
    for seed in (0, 3):
        phantom = make(name, seed, radius_mm=radius_mm, half_height_mm=half_height_mm)
        known = phantom.attenuations()
        for time_s in (-20.0, 0.0, 41.7, 150.0, 299.0, 301.0, 5000.0, 1.7e9):
            values = phantom.attenuation(lattice, time_s)
            far = np.abs(values[..., None] - known).min(axis=-1).max()
            assert far < 1e-7 * known.max() * len(known) * 10
            assert values.min() > -1e-7


@pytest.mark.parametrize("name", ["A", "B"])
def test_bodies_keep_to_what_they_lie_in(name):
    for seed in range(4):
        phantom = make(name, seed)
        for time_s in np.linspace(0, 400, 41):
            bubbles = phantom.bubbles(time_s)
            centres, radii = bubbles.centres_mm, bubbles.radii_mm
            tablet = phantom.tablet
            _, half, _ = tablet.sizes_mm(time_s)
            granules = phantom.still.kept(phantom.still.materials == Material.GRANULE)
            others = np.concatenate([centres, granules.centres]), np.concatenate([radii, granules.radii])
            apart = np.linalg.norm(centres[:, None] - others[0], axis=-1) - radii[:, None] - others[1]
            apart[np.arange(len(radii)), np.arange(len(radii))] = np.inf
            assert apart.min() > 0
            if half > 0:
                # A bubble's distance to the tablet is no less than to the upright tube around it, or to its top.
                beside = np.hypot(centres[:, 0] - tablet.x_mm, centres[:, 1] - tablet.y_mm) - tablet.footprint_mm
                above = centres[:, 2] - tablet.top_mm(time_s)
                assert np.all(np.maximum(beside, above) > radii)
            fluid = phantom.still.kept(phantom.still.materials == Material.FLUID)
            assert np.all(np.hypot(*centres.T[:2]) + radii < fluid.radii[0])
            assert np.all(centres[:, 2] + radii < fluid.highs[0])


def test_sample_leaves_a_margin_in_the_field_of_view():
    phantom = make()
    values = phantom.attenuation(whole(81), 30.0)
    z, y, x = np.nonzero(values > 0)
    points = whole(81).points_of(np.stack([z, y, x], axis=-1))
    assert np.hypot(*points.T[:2]).max() <= 0.92 * RADIUS_MM
    assert np.abs(points[:, 2]).max() <= 0.84 * HALF_HEIGHT_MM
    assert np.hypot(*points.T[:2]).max() > 0.9 * RADIUS_MM


def test_two_makings_of_one_seed_are_the_same_and_another_seed_is_another_sample():
    first, again, other = make(seed=4), pickle.loads(pickle.dumps(make(seed=4))), make(seed=5)  # noqa: S301 (our own bytes)
    image = first.line_integrals(CONE, 0.4, 33.0)
    assert np.array_equal(image, again.line_integrals(CONE, 0.4, 33.0))
    assert not np.array_equal(image, other.line_integrals(CONE, 0.4, 33.0))


def test_truth_at_a_time_does_not_depend_on_what_was_asked_before():
    asked, fresh = make("B"), make("B")
    for time_s in (500.0, 0.0, 77.0):
        asked.bodies(time_s)
    assert np.array_equal(asked.attenuation(whole(20), 61.3), fresh.attenuation(whole(20), 61.3))


def heights_by_bubble(bubbles):
    return dict(zip(zip(bubbles.lanes, bubbles.numbers, strict=True), bubbles.centres_mm[:, 2], strict=True))


def rises_in_a_second_and_radii(phantom):
    rises, radii = [], []
    for time_s in np.arange(0.0, 100.0, 5.0):
        now, then = phantom.bubbles(time_s), phantom.bubbles(time_s + 1)
        heights, later = heights_by_bubble(now), heights_by_bubble(then)
        rises.extend(later[bubble] - heights[bubble] for bubble in heights if bubble in later)
        radii.extend(now.radii_mm)
    return np.array(rises), np.array(radii)


def test_bubbles_of_a_are_larger_and_faster_than_those_of_b():
    rises_a, radii_a = rises_in_a_second_and_radii(make("A"))
    rises_b, radii_b = rises_in_a_second_and_radii(make("B"))
    assert rises_a.min() > 0
    assert rises_b.min() > 0
    assert rises_a.mean() > 4 * rises_b.mean()
    assert radii_a.mean() > 1.5 * radii_b.mean()
    assert radii_a.max() > 2 * radii_b.max()


def test_bubbles_rise_at_their_own_speed():
    for factor in (1.0, 0.5):
        phantom = make("A", speed=factor)
        now, then = phantom.bubbles(10.0), phantom.bubbles(10.5)
        heights, later = heights_by_bubble(now), heights_by_bubble(then)
        speeds = dict(zip(heights, now.speeds_mm_s, strict=True))
        both = [bubble for bubble in heights if bubble in later]
        rises = np.array([later[bubble] - heights[bubble] for bubble in both])
        np.testing.assert_allclose(rises, 0.5 * np.array([speeds[bubble] for bubble in both]), rtol=1e-6)
        assert now.speeds_mm_s.mean() == pytest.approx(factor * STYLES["A"].speed * RADIUS_MM, rel=0.35)


def test_bubbles_go_on_for_ever():
    for name in ("A", "B"):
        for time_s in (0.0, 3600.0, 86400.0, 1.7e9):
            assert len(make(name).bubbles(time_s).radii_mm) > 8


def test_tablet_dissolves_in_the_time_given():
    phantom = make(dissolve_s=100.0)

    def volume(time_s):
        tablet = np.isclose(phantom.attenuation(whole(81), time_s), phantom.attenuations()[Material.TABLET], rtol=1e-5)
        return np.count_nonzero(tablet)

    volumes = [volume(time_s) for time_s in (0.0, 25.0, 50.0, 75.0, 99.9, 100.0, 1e6)]
    assert volumes[0] > 300
    assert volumes == sorted(volumes, reverse=True)
    assert volumes[1] < volumes[0]
    assert volumes[-2:] == [0, 0]


def test_each_energy_has_its_attenuation_and_the_low_one_is_taken_most():
    phantom = make()
    low, mean, high = (phantom.line_integrals(CONE, 0.0, 5.0, energy=energy) for energy in ("low", "mean", "high"))
    inside = mean > 0.1
    assert np.all(low[inside] > mean[inside])
    assert np.all(mean[inside] > high[inside])
    with pytest.raises(ValueError, match=r"'soft'.*low, mean, high"):
        phantom.line_integrals(CONE, 0.0, 5.0, energy="soft")


def test_oversampling_averages_the_points_of_a_voxel():
    phantom = make()
    coarse = Grid.slice_xy(z_mm=2.0, voxel_mm=1.2, shape=(40, 40))
    fine = Grid.centred(centre=(0, 0, 2.0), x_axis=(1, 0, 0), y_axis=(0, 1, 0), voxel_mm=0.4, shape=(3, 120, 120))
    blocks = phantom.attenuation(fine, 8.0).reshape(3, 40, 3, 40, 3).mean(axis=(0, 2, 4))
    np.testing.assert_allclose(phantom.attenuation(coarse, 8.0, oversample=3)[0], blocks, atol=1e-6)


def test_slices_of_different_orientation_agree_where_they_meet():
    phantom = make()
    volume = Grid.volume(voxel_mm=1.0, shape=(41, 41, 41))
    values = phantom.attenuation(volume, 20.0)
    upright = phantom.attenuation(Grid.slice_xz(y_mm=3.0, voxel_mm=1.0, shape=(41, 41)), 20.0)[0]
    np.testing.assert_array_equal(upright, values[:, 23, :])
    tilted = Grid.centred(centre=(0, 0, 0), x_axis=(1, 1, 0), y_axis=(0, 0.2, 1), voxel_mm=0.7, shape=(1, 30, 30))
    indices = (tilted.points() - volume.origin)[..., ::-1]
    nearest = map_coordinates(values, np.moveaxis(indices, -1, 0), order=0, mode="nearest")
    assert np.mean(np.isclose(nearest, phantom.attenuation(tilted, 20.0), atol=1e-6)) > 0.85


def test_impossible_requests_say_what_to_give():
    with pytest.raises(ValueError, match=r"'C'.*A, B"):
        make("C")
    with pytest.raises(ValueError, match="half_height_mm is -1"):
        make(half_height_mm=-1.0)
    with pytest.raises(ValueError, match="source_axis_mm is 20"):
        make().line_integrals(replace(CONE, source_axis_mm=20.0), 0.0, 0.0)
    with pytest.raises(ValueError, match="oversample is 0"):
        make().attenuation(whole(3), 0.0, oversample=0)
