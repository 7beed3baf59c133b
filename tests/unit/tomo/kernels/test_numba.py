"""Every kernel gives the reference's answer."""

import numpy as np
import pytest

from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Jobs, ReferenceKernel, Slots
from bluesky_jit.tomo.kernels import choose

CONE = ConeGeometry(n_u=90, n_v=70, pixel_mm=0.4, source_axis_mm=60, source_detector_mm=150, axis_offset_mm=0.3)
PARALLEL = ParallelGeometry(n_u=90, n_v=70, pixel_mm=0.2, axis_offset_mm=-0.1)
KERNELS = ("numba",)
N_ANGLES = 17

GRIDS = {
    "axial": (Grid.slice_xy(z_mm=0.5, voxel_mm=0.15, shape=(70, 90)),),
    "upright": (Grid.slice_yz(x_mm=-1, voxel_mm=0.15, shape=(50, 75)),),
    "oblique": (
        Grid.centred(centre=(0.5, 1, 0), x_axis=(1, 0.3, 0.2), y_axis=(-0.4, 1, 0.7), voxel_mm=0.13, shape=(1, 67, 65)),
    ),
    "slab": (Grid.centred(centre=(0, 1, 0), x_axis=(1, 2, 0), y_axis=(0, 1, 1), voxel_mm=0.2, shape=(3, 20, 20)),),
    "volume": (Grid.volume(voxel_mm=0.5, shape=(12, 14, 16)),),
    "partly outside the field of view": (Grid.slice_xy(z_mm=4.8, voxel_mm=0.7, shape=(40, 70)),),
    "wholly outside": (Grid.slice_xy(z_mm=40, voxel_mm=0.1, shape=(8, 8)),),
    "one point": (Grid.slice_xy(voxel_mm=1, shape=(1, 1)),),
    "one row": (Grid.slice_xy(voxel_mm=0.1, shape=(1, 130)),),
    "patches": tuple(
        Grid.centred(
            centre=(0.4 * n - 1, 0.2 * n, 0.3 * n), x_axis=(1, n, 0), y_axis=(0, 1, n), voxel_mm=0.16, shape=(1, 20, 20)
        )
        for n in range(5)
    ),
}


def random_slots(geometry, n):
    rng = np.random.default_rng(4)
    values = np.zeros((n, geometry.n_v + 2, geometry.n_u + 2), dtype=np.int16)
    values[:, 1:-1, 1:-1] = rng.integers(-32767, 32768, (n, geometry.n_v, geometry.n_u))
    return Slots(values=values, scales=rng.uniform(0.5e-4, 2e-4, n).astype(np.float32))


def random_jobs(geometry, grids, *, n_splits=1, **changes):
    rng = np.random.default_rng(5)
    values = {
        "projections": random_slots(geometry, N_ANGLES + 3),
        "matrices": geometry.matrices(rng.uniform(0, 2 * np.pi, N_ANGLES)),
        "slots": rng.permutation(N_ANGLES + 3)[:N_ANGLES],
        "scales": rng.uniform(-1, 1, N_ANGLES),
        "splits": rng.integers(0, n_splits, N_ANGLES),
        "n_splits": n_splits,
        "grids": grids,
    }
    return Jobs(**{**values, **changes})


def assert_same(result, expected):
    assert result.dtype == np.float32
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=0, atol=3e-4 * np.abs(expected).max())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("geometry", [CONE, PARALLEL], ids=lambda geometry: geometry.kind)
@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS.keys())
def test_a_kernel_gives_the_references_answer_on_any_grid(kernel, geometry, grids):
    jobs = random_jobs(geometry, grids)
    assert_same(choose(kernel).run(jobs), ReferenceKernel().run(jobs))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("n_splits", [2, 3, 8])
def test_one_pass_gives_every_split(kernel, n_splits):
    jobs = random_jobs(CONE, GRIDS["patches"], n_splits=n_splits)
    assert_same(choose(kernel).run(jobs), ReferenceKernel().run(jobs))


@pytest.mark.parametrize("kernel", KERNELS)
def test_adding_and_then_subtracting_projections_leaves_nothing(kernel):
    jobs = random_jobs(CONE, GRIDS["oblique"])
    twice = {
        "slots": np.concatenate([jobs.slots, jobs.slots]),
        "matrices": np.concatenate([jobs.matrices, jobs.matrices]),
        "scales": np.concatenate([jobs.scales, -jobs.scales]),
        "splits": np.concatenate([jobs.splits, jobs.splits]),
    }
    left = choose(kernel).run(random_jobs(CONE, GRIDS["oblique"], **twice))
    assert np.abs(left).max() < 1e-5 * np.abs(choose(kernel).run(jobs)).max()


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_grid_around_and_behind_the_source_stays_finite(kernel):
    grids = (Grid.centred(centre=(0, -58, 0), x_axis=(1, 0, 0), y_axis=(0, 1, 0), voxel_mm=1, shape=(1, 40, 30)),)
    jobs = random_jobs(CONE, grids, matrices=CONE.matrices(np.zeros(N_ANGLES)))
    result, expected = choose(kernel).run(jobs), ReferenceKernel().run(jobs)
    assert np.isfinite(result).all()
    # Near the source a pixel is crossed in a hair's breadth, and single precision tells.
    in_front = grids[0].points()[..., 1] > -55
    assert_same(np.where(in_front, result, 0), np.where(in_front, expected, 0))


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_projections_give_zeros(kernel):
    nothing = {
        "matrices": np.zeros((0, 3, 4)),
        "slots": np.zeros(0, int),
        "scales": np.zeros(0),
        "splits": np.zeros(0, int),
    }
    result = choose(kernel).run(random_jobs(CONE, GRIDS["one row"], n_splits=2, **nothing))
    assert result.shape == (1, 2, 1, 1, 130)
    assert not result.any()


def test_the_choice_of_kernel_is_logged_and_a_wrong_name_is_refused(caplog):
    with caplog.at_level("INFO", logger="bluesky_jit.tomo.kernels"):
        choose("auto")
    assert [record.getMessage() for record in caplog.records] == [
        "backprojection kernel: numba on the CPU (chosen automatically)"
    ]
    assert isinstance(choose("reference"), ReferenceKernel)
    with pytest.raises(ValueError, match="kernel is 'abacus': give one of auto, numba, reference"):
        choose("abacus")
