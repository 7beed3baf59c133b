"""Scans of balls over several turns, and what their time frames should be."""

import numpy as np
from analytic_balls import Ball, counts_of, darks, flats, line_integrals, make_block

from bluesky_jit.tomo.geometry import ConeGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.kernels import choose
from bluesky_jit.tomo.live import FilteredBackprojection

CONE = ConeGeometry(n_u=48, n_v=16, pixel_mm=1.0, source_axis_mm=100, source_detector_mm=200)
BALLS = [Ball((2, 1, 0), 7, 0.02), Ball((-3, -3, 1), 2, 0.02)]
N = 40
XY = Grid.slice_xy(voxel_mm=0.6, shape=(24, 28))
XZ = Grid.slice_xz(voxel_mm=0.6, shape=(20, 28))
PATCHES = tuple(Grid.slice_xy(voxel_mm=0.5, shape=(20, 20)).moved((n, 0, n)) for n in range(3))
STEADY = 2 * np.pi / N * np.arange(8 * N)
ANGLES = {
    "steady": STEADY,
    "the stage does not keep its steps": STEADY + np.random.default_rng(4).uniform(-0.03, 0.03, len(STEADY)),
    "turns that do not repeat": 2 * np.pi / 37.3 * np.arange(len(STEADY)),
    "golden": np.pi * (3 - np.sqrt(5)) * np.arange(len(STEADY)),
}


def scan(angles=STEADY, *, geometry=CONE, seed=0):
    """Return projections whose noise differs from turn to turn."""
    counts = counts_of(line_integrals(geometry, BALLS, angles))
    return make_block("projection", np.random.default_rng(seed).poisson(counts), angles_rad=angles)


def part(block, numbers):
    return make_block(
        block.kind, block.counts[numbers], angles_rad=block.angles_rad[numbers], acquisition=block.acquisition[numbers]
    )


def reconstruction(*blocks, geometry=CONE, **how):
    result = FilteredBackprojection(geometry, **{"n_projections": N, "kernel": "numba"} | how)
    for block in (darks(geometry), flats(geometry), *blocks):
        result.push(block)
    return result


def images(made):
    assert made is not None
    return made.images


def pairs(result, **how):
    made = result.pairs(PATCHES, **how)
    assert made is not None
    return made


def assert_same(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def assert_frames_are_windows(result, block, ends, *, before=(), **how):
    """Compare all frames of a result with what reconstructions show whose scans end where the frames do."""
    made, sequence = pairs(result), images(result.sequences((XY, XZ)))
    n_splits = made.shape[1]
    assert made.shape == (3, n_splits, len(ends), 1, 20, 20)
    assert made.dtype == np.float32
    for frame, end in enumerate(ends):
        alone = reconstruction(*before, part(block, block.acquisition <= end), n_splits=n_splits, **how)
        assert_same(made[:, :, frame], pairs(alone)[:, :, 0])
        for ours, expected in zip(sequence, images(alone.slices((XY, XZ))), strict=True):
            assert_same(ours[frame], expected)


class CountingKernel:
    """Run the usual kernel and note how many projections each call adds."""

    def __init__(self):
        self.kernel = choose("numba")
        self.calls = []

    def run(self, jobs, *, out=None):
        self.calls.append(len(jobs.slots))
        return self.kernel.run(jobs, out=out)
