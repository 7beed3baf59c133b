"""A two-dimensional scene with a known truth, seen twice through independent noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from bluesky_jit.messages import Pairs

NOISE = 0.02
BACKGROUND = 0.03


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Hold the truth (ny, nx) in 1/mm and two noisy views of it."""

    truth: np.ndarray
    u: np.ndarray
    v: np.ndarray

    def pairs(self, count: int, *, seed: int, size: int = 20) -> Pairs:
        """Cut patches at random places of the left half: the right half is for held-out figures."""
        rng = np.random.default_rng(seed)
        ny, nx = self.truth.shape
        rows, columns = rng.integers(ny - size, size=count), rng.integers(nx // 2 - size, size=count)
        cuts = [np.s_[row : row + size, column : column + size] for row, column in zip(rows, columns, strict=True)]
        return Pairs(
            u=np.stack([self.u[cut] for cut in cuts])[:, None, None],
            v=np.stack([self.v[cut] for cut in cuts])[:, None, None],
        )

    @property
    def held_out(self) -> Pairs:
        """Return the right half as one pair."""
        right = np.s_[None, None, None, :, self.truth.shape[1] // 2 :]
        return Pairs(u=self.u[right], v=self.v[right])


def make_scene(seed: int, *, noise: float = NOISE, size: int = 256) -> Scene:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    truth = np.full((size, size), BACKGROUND)
    for _ in range(60):
        cy, cx, radius, value = rng.uniform(0, size), rng.uniform(0, size), rng.uniform(4, 20), rng.uniform(-0.03, 0.03)
        truth[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] += value
    truth += 0.1 * noise * gaussian_filter(rng.normal(size=(size, size)), 3) * 6
    u, v = truth + noise * rng.normal(size=(2, size, size))
    return Scene(truth=truth.astype(np.float32), u=u.astype(np.float32), v=v.astype(np.float32))
