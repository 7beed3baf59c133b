"""Noise2Inverse: how the splits of a patch become a training pair. Where patches lie: `patch_sampler.py`."""

from __future__ import annotations

import numpy as np

from bluesky_jit.learn.patch_sampler import PatchSampler
from bluesky_jit.messages import Pairs

__all__ = ["PatchSampler", "make_pairs"]


def make_pairs(splits: np.ndarray, *, rng: np.random.Generator | None = None) -> Pairs:
    """Make training pairs of the splits of patches: float32 (n, K, nt, nz, ny, nx), K at least 2.

    Two splits are u and v. Of more, one drawn for each patch is the input u, and the mean of the others the target v.
    """
    n, count = splits.shape[:2]
    if splits.ndim != 6:
        raise ValueError(f"the splits are {splits.shape}: give (n, K, nt, nz, ny, nx), as Reconstructor.pairs does")
    if count < 2:
        raise ValueError(f"there is {count} split: Noise2Inverse needs at least 2")
    if count == 2:
        return Pairs(u=splits[:, 0], v=splits[:, 1])
    if rng is None:
        raise ValueError(f"of {count} splits the input is drawn at random: give rng")
    chosen = rng.integers(count, size=n)
    u = splits[np.arange(n), chosen]
    v = (splits.sum(axis=1) - u) / np.float32(count - 1)
    return Pairs(u=u, v=v)
