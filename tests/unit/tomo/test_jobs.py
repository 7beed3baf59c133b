"""The reference answer, against SciPy's interpolation."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from bluesky_jit.tomo.geometry import ConeGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Jobs, ReferenceKernel, Slots

CONE = ConeGeometry(n_u=40, n_v=30, pixel_mm=1.0, source_axis_mm=100, source_detector_mm=150)


def jobs_for(grid, image, *, angle_rad=0.3, scale=0.5):
    values = np.zeros((1, CONE.n_v + 2, CONE.n_u + 2), dtype=np.int16)
    values[0, 1:-1, 1:-1] = image
    return Jobs(
        projections=Slots(values=values, scales=np.array([0.25], dtype=np.float32)),
        matrices=CONE.matrices(np.array([angle_rad])),
        slots=np.array([0]),
        scales=np.array([scale]),
        splits=np.array([0]),
        n_splits=1,
        grids=(grid,),
    )


def test_each_point_reads_its_pixel_bilinearly_weighted_by_its_depth():
    image = np.random.default_rng(1).integers(-1000, 1000, (CONE.n_v, CONE.n_u))
    grid = Grid.centred(centre=(2, 1, 0), x_axis=(1, 0.2, 0.1), y_axis=(0, 1, 0.4), voxel_mm=1.7, shape=(2, 20, 24))
    result = ReferenceKernel().run(jobs_for(grid, image))
    u, v, w = CONE.matrices(np.array([0.3]))[0] @ np.concatenate([grid.points().reshape(-1, 3).T, np.ones((1, 960))])
    expected = map_coordinates(0.25 * image.astype(float), [v / w, u / w], order=1, mode="grid-constant", cval=0.0)
    assert result.shape == (1, 1, 2, 20, 24)
    np.testing.assert_allclose(result.ravel(), 0.5 * expected / w**2, atol=1e-4)


def test_points_off_the_detector_or_behind_the_source_read_zero():
    image = np.full((CONE.n_v, CONE.n_u), 1000)
    far_above = Grid.slice_xy(z_mm=50, voxel_mm=1, shape=(4, 4))
    behind = Grid.centred(centre=(0, -100, 0), x_axis=(1, 0, 0), y_axis=(0, 1, 0), voxel_mm=1, shape=(1, 5, 4))
    assert not ReferenceKernel().run(jobs_for(far_above, image)).any()
    result = ReferenceKernel().run(jobs_for(behind, image, angle_rad=0.0))
    assert np.isfinite(result).all()
    assert not result[0, 0, 0, :3].any()


def test_matrices_that_are_not_finite_are_refused():
    jobs = jobs_for(Grid.slice_xy(voxel_mm=1, shape=(4, 4)), np.ones((CONE.n_v, CONE.n_u)))
    broken = replace(jobs, matrices=np.full_like(jobs.matrices, np.nan))
    with pytest.raises(
        ValueError, match="matrices hold numbers that are not finite: check the geometry and the angles"
    ):
        ReferenceKernel().run(broken)
