"""ASTRA's own code as a second opinion: what runs on the CPU, and what its GPU code is told."""

import numpy as np
import pytest
from backprojection_jobs import CONE, OUTSIDE, PARALLEL, SLABS, SLICE, UPRIGHT, assert_right, jobs_on, noise_slots

from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.kernels import astra as ours
from bluesky_jit.tomo.kernels.astra import AstraKernel, rays_in, require_in_front, vectors_3d

AVERAGED = 0.02
"""ASTRA's strip model averages over a ninth of a pixel where the reference takes points: this part of white noise."""
TURNED = (Grid.centred(centre=(1, -2, 0.7), x_axis=(1, 2, 0), y_axis=(-2, 1, 0), voxel_mm=0.11, shape=(2, 30, 45)),)

pytest.importorskip("astra", reason="astra-toolbox is not installed")


@pytest.fixture
def kernel(monkeypatch):
    made = AstraKernel()
    monkeypatch.setattr(made, "on_gpu", False)
    return made


@pytest.mark.parametrize(
    "grids", [SLICE, TURNED, OUTSIDE, SLICE + SLICE], ids=["slice", "turned planes", "partly outside", "two slices"]
)
@pytest.mark.parametrize("n_splits", [1, 3])
def test_on_the_cpu_astra_agrees_on_horizontal_slices_of_a_parallel_beam(kernel, grids, n_splits):
    jobs = jobs_on(noise_slots(PARALLEL), grids, geometry=PARALLEL, n_splits=n_splits)
    assert_right(kernel.run(jobs), jobs, part=AVERAGED)


def test_large_slices_are_made_in_strips(kernel, monkeypatch):
    jobs = jobs_on(noise_slots(PARALLEL), TURNED, geometry=PARALLEL)
    whole = kernel.run(jobs)
    monkeypatch.setattr(ours, "MOST_VALUES", 45 * 5**2 * 7)
    np.testing.assert_allclose(kernel.run(jobs), whole, rtol=0, atol=1e-3 * np.abs(whole).max())


def test_astra_adds_to_what_is_there(kernel):
    jobs = jobs_on(noise_slots(PARALLEL), geometry=PARALLEL)
    out = np.ones(jobs.result_shape, dtype=np.float32)
    assert kernel.run(jobs, out=out) is out
    np.testing.assert_allclose(out - 1, kernel.run(jobs), atol=1e-5)


@pytest.mark.parametrize(
    ("geometry", "grids"), [(CONE, SLICE), (PARALLEL, UPRIGHT), (PARALLEL, SLABS)], ids=["cone", "upright", "oblique"]
)
def test_without_a_gpu_other_jobs_are_refused(kernel, geometry, grids):
    with pytest.raises(NotImplementedError, match="without a GPU, ASTRA backprojects horizontal slices of a parallel"):
        kernel.run(jobs_on(noise_slots(geometry), grids, geometry=geometry))


@pytest.mark.parametrize("geometry", [CONE, PARALLEL], ids=lambda geometry: geometry.kind)
def test_the_3d_vectors_meet_the_detector_where_the_matrices_say(geometry):
    jobs = jobs_on(noise_slots(geometry), SLABS, geometry=geometry)
    rays = rays_in(SLABS[0], jobs.matrices)
    kind, vectors = vectors_3d(rays, geometry.n_v + 2, geometry.n_u + 2)
    points = np.random.default_rng(0).uniform(-10, 10, (20, 3))
    for ray, (first, centre, u, v) in zip(rays, vectors.reshape(-1, 4, 3), strict=True):
        for point in points:
            direction = point - first if kind == "cone_vec" else first
            # point + t·direction = centre + a·u + b·v
            a, b, _ = np.linalg.solve(np.stack([u, v, -direction], axis=1), point - centre)
            uw, vw, w = ray @ np.append(point, 1)
            np.testing.assert_allclose([a + (geometry.n_u + 1) / 2, b + (geometry.n_v + 1) / 2], [uw / w, vw / w])


def test_astras_density_of_rays_in_the_cone_is_the_weight_of_a_voxel():
    rays = rays_in(SLABS[0], CONE.matrices(np.linspace(0, 5, 4)))
    _, vectors = vectors_3d(rays, CONE.n_v + 2, CONE.n_u + 2)
    point = np.array([3.0, -4.0, 5.0])
    for ray, (source, centre, u, v) in zip(rays, vectors.reshape(-1, 4, 3), strict=True):
        # As ASTRA's backprojection weights it: (det(u, v, s − d) / det(u, v, s − x))² / |u × v|.
        area = np.linalg.norm(np.cross(u, v))
        density = (np.linalg.det([u, v, source - centre]) / np.linalg.det([u, v, source - point])) ** 2 / area
        assert density * area == pytest.approx(1 / (ray[2] @ np.append(point, 1)) ** 2)


def test_a_grid_behind_the_source_is_refused():
    behind = Grid.slice_xy(voxel_mm=4.0, shape=(40, 40))
    with pytest.raises(NotImplementedError, match="of the way from the source to the axis"):
        require_in_front(rays_in(behind, CONE.matrices(np.zeros(1))), behind)
    require_in_front(rays_in(SLABS[0], CONE.matrices(np.zeros(1))), SLABS[0])
