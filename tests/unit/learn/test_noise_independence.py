"""Noise never leaks from the input of a pair into its target: seen on projections that hold nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from bluesky_jit.learn.noise2inverse import PatchSampler, make_pairs
from bluesky_jit.learn.region import field_cylinder
from bluesky_jit.tomo.geometry import ConeGeometry, ParallelGeometry
from bluesky_jit.tomo.live import FilteredBackprojection
from tests.helpers.noise_run import flats, frames

PARALLEL = ParallelGeometry(n_u=32, n_v=24, pixel_mm=1.0)
CONE = ConeGeometry(n_u=32, n_v=24, pixel_mm=1.0, source_axis_mm=100.0, source_detector_mm=140.0)
PER_TURN = 24
WINDOWS = 40


def reconstructor(geometry=PARALLEL, **changes) -> FilteredBackprojection:
    made = FilteredBackprojection(geometry, n_projections=PER_TURN, kernel="numba", **changes)
    made.push(flats(geometry))
    return made


def noise_of_windows(scan: FilteredBackprojection, grids, *, ends: list[int], spans: int) -> np.ndarray:
    """Return splits (n_windows, n, K, nt, nz, ny, nx) of windows that end at these numbers, less their mean.

    The mean is what all windows share, which is no noise: that of the counts. spans: turns that each end needs.
    """
    made = []
    for end in ends:
        first = end - spans * PER_TURN + 1
        scan.push(frames(scan.geometry, range(max(first, (scan.newest or -1) + 1), end + 1), per_turn=PER_TURN))
        splits = scan.pairs(grids, until=end)
        assert splits is not None
        made.append(splits)
    return np.stack(made) - np.mean(made, axis=0)


def correlation(u: np.ndarray, v: np.ndarray) -> tuple[float, float]:
    """Return the correlation of the noise of windows (n_windows, …) and its standard error, from their scatter."""
    u, v = (side.reshape(len(side), -1).astype(np.float64) for side in (u, v))
    products = (u * v).mean(axis=1) / (u.std() * v.std())
    return float(products.mean()), float(products.std() / np.sqrt(len(products)))


def is_none(found: tuple[float, float]) -> bool:
    value, error = found
    assert error < 0.02, "too few windows to tell"
    return abs(value) < 4 * error


def patches(geometry, depth: int = 1):
    return PatchSampler(field_cylinder(geometry), voxel_mm=0.5, patch=12, depth=depth, batch=16, seed=0).train()


@pytest.mark.parametrize("geometry", [PARALLEL, CONE], ids=["parallel", "cone"])
@pytest.mark.parametrize("n_splits", [2, 3, 4])
def test_the_noise_of_input_and_target_is_independent(geometry, n_splits):
    scan = reconstructor(geometry, n_splits=n_splits)
    ends = [(number + 1) * PER_TURN - 1 for number in range(WINDOWS)]
    noise = noise_of_windows(scan, patches(geometry, depth=3), ends=ends, spans=1)
    pairs = [make_pairs(splits, rng=np.random.default_rng(0)) for splits in noise]
    assert is_none(correlation(np.stack([pair.u for pair in pairs]), np.stack([pair.v for pair in pairs])))
    # The whole image has its share in both, which is how a leak would look.
    whole = noise.mean(axis=2)
    assert correlation(np.stack([pair.u for pair in pairs]), whole)[0] > 0.4


def test_the_target_of_more_splits_is_less_noisy_than_the_input():
    scan = reconstructor(n_splits=3)
    ends = [(number + 1) * PER_TURN - 1 for number in range(WINDOWS)]
    noise = noise_of_windows(scan, patches(PARALLEL), ends=ends, spans=1)
    pairs = [make_pairs(splits, rng=np.random.default_rng(0)) for splits in noise]
    u, v = (np.stack([getattr(pair, side) for pair in pairs]) for side in "uv")
    # The mean of two splits beside one of them.
    assert v.var() / u.var() == pytest.approx(1 / 2, rel=0.05)


@pytest.mark.parametrize("spacing", [2, 6, 10])
def test_no_frame_of_the_input_knows_the_noise_of_any_frame_of_the_target(spacing):
    scan = reconstructor(frames=3, frame_spacing=spacing)
    ends = [(2 * number + 2) * PER_TURN - 1 for number in range(WINDOWS)]
    noise = noise_of_windows(scan, patches(PARALLEL), ends=ends, spans=2)
    u, v = noise[:, :, 0], noise[:, :, 1]
    for first in range(3):
        for second in range(3):
            assert is_none(correlation(u[:, :, first], v[:, :, second]))
    # Frames of one split do share projections, the more the nearer they are.
    assert correlation(u[:, :, 0], u[:, :, 1])[0] == pytest.approx(1 - spacing / PER_TURN, abs=0.1)


def test_an_odd_spacing_is_refused_for_dealt_by_place_it_would_leak():
    with pytest.raises(ValueError, match="frame_spacing is 5"):
        reconstructor(frames=3, frame_spacing=5)
    # Places count from a window's end; an odd number of projections later, u is made of what v was made of.
    scan = reconstructor(history=PER_TURN)
    grids = patches(PARALLEL)
    earlier, target = [], []
    for end in [(2 * number + 2) * PER_TURN - 1 for number in range(WINDOWS)]:
        scan.push(frames(PARALLEL, range((scan.newest or -1) + 1, end + 1), per_turn=PER_TURN))
        for found, until in ((earlier, end - 5), (target, end)):
            splits = scan.pairs(grids, until=until)
            assert splits is not None
            by_place = splits if (until - end) % 2 == 0 else splits[:, ::-1]
            found.append(by_place)
    u, v = (
        (lambda noise: noise - noise.mean(axis=0))(np.stack([splits[:, side] for splits in found]))
        for side, found in ((0, earlier), (1, target))
    )
    assert correlation(u, v)[0] > 0.6
