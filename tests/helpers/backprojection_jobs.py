"""Job tables of noise for the tests of kernels, and how near to the reference their answers have to be."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bluesky_jit.tomo.geometry import ConeGeometry, Geometry, ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Jobs, ReferenceKernel, Slots

CONE = ConeGeometry(n_u=90, n_v=70, pixel_mm=0.4, source_axis_mm=60, source_detector_mm=150, axis_offset_mm=0.3)
PARALLEL = ParallelGeometry(n_u=90, n_v=70, pixel_mm=0.2, axis_offset_mm=-0.1)
N = 11

SLICE = (Grid.slice_xy(z_mm=0.5, voxel_mm=0.15, shape=(40, 50)),)
UPRIGHT = (Grid.slice_xz(y_mm=0.5, voxel_mm=0.15, shape=(40, 50)),)
SLAB = Grid.centred(centre=(0, 1, 0), x_axis=(1, 2, 0), y_axis=(0, 1, 1), voxel_mm=0.3, shape=(5, 12, 20))
SLABS = (SLAB, SLAB.moved((1, 0, 0)), SLAB.moved((0, 1, 1)))
PATCHES = tuple(
    Grid.centred(
        centre=(0.4 * n - 1, 0.2 * n, 0.3 * n), x_axis=(1, n, 0), y_axis=(0, 1, n), voxel_mm=0.16, shape=(1, 20, 20)
    )
    for n in range(5)
)
OUTSIDE = (Grid.slice_xy(z_mm=4.8, voxel_mm=0.7, shape=(40, 70)),)


def noise_slots(geometry: Geometry = CONE, n: int = N, *, seed: int = 1, counted: bool = True) -> Slots:
    """Return slots of white noise, which forgives the least; counted: with the versions that a window keeps."""
    rng = np.random.default_rng(seed)
    values = np.zeros((n, geometry.n_v + 2, geometry.n_u + 2), dtype=np.int16)
    values[:, 1:-1, 1:-1] = rng.integers(-32767, 32768, (n, geometry.n_v, geometry.n_u))
    return Slots(
        values=values,
        scales=rng.uniform(0.5e-4, 2e-4, n).astype(np.float32),
        versions=np.zeros(n, dtype=np.int64) if counted else None,
    )


def jobs_on(
    projections: Slots,
    grids: tuple[Grid, ...] = SLICE,
    *,
    slots: Iterable[int] = range(N),
    n_splits: int = 1,
    geometry: Geometry = CONE,
) -> Jobs:
    """Ask for grids from these slots, each with an angle and a scale of its own."""
    chosen = np.array(list(slots), dtype=np.int64)
    rng = np.random.default_rng(2)
    angles, scales = rng.uniform(0, 2 * np.pi, len(projections.values)), rng.uniform(-1, 1, len(projections.values))
    return Jobs(
        projections=projections,
        matrices=geometry.matrices(angles[chosen]),
        slots=chosen,
        scales=scales[chosen],
        splits=chosen % n_splits,
        n_splits=n_splits,
        grids=grids,
    )


def assert_right(result: np.ndarray, jobs: Jobs, *, part: float) -> None:
    """Require the reference's answer to within a part of its largest value."""
    expected = ReferenceKernel().run(jobs)
    assert result.dtype == np.float32
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=0, atol=part * np.abs(expected).max())
