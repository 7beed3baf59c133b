"""Whole slices of all projections against the noise-free truth: networks beside what needs no learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

import numpy as np

from bluesky_jit.bench.experiments import Recording, seen
from bluesky_jit.bench.peers import installed
from bluesky_jit.learn.model import Applier
from bluesky_jit.learn.quality.scores import psnr, ssim
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection

TV_WEIGHTS = np.geomspace(0.02, 1.0, 18)
"""Weights of total variation that are tried, in units of the truth's spread: the best against the truth is shown."""
TV_ITERATIONS = 300
"""As in the paper."""


class Windows:
    """Make slabs of a recording that all show one turn; sequences have it in their middle.

    longest: the most frames that a sequence will have.
    """

    def __init__(self, recording: Recording, *, longest: int = 1) -> None:
        self.recording = recording
        self._spacing = recording.setup.frame_spacing
        self.target = len(recording.projections) - 1 - (longest - 1) // 2 * self._spacing
        self._made: dict[int, FilteredBackprojection] = {}

    def slab(self, grid: Grid, *, frames: int = 1, depth: int = 1) -> np.ndarray:
        """Return float32 (nt, nz, ny, nx) of all projections around a slice."""
        made = self._with(frames).sequences((grid.slab(depth),), until=self._until(frames))
        if made is None:
            raise RuntimeError(f"the recording has no {frames} frames around projection {self.target}")
        return made.images[0]

    def halves(self, grid: Grid) -> np.ndarray:
        """Return float32 (2, ny, nx): the slice from each split."""
        splits = self._with(1).pairs((grid,), until=self.target)
        if splits is None:
            raise RuntimeError(f"the recording has no turn that ends at projection {self.target}")
        return splits[0, :, 0, 0]

    def _with(self, frames: int) -> FilteredBackprojection:
        if frames not in self._made:
            self._made[frames] = self.recording.window(frames=frames)
        return self._made[frames]

    def _until(self, frames: int) -> int:
        return self.target + (frames - 1) // 2 * self._spacing


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """Show one slice: raw, truth and mask (where every projection sees) are (ny, nx); noise: of raw, in 1/mm."""

    name: str
    grid: Grid
    windows: Windows
    raw: np.ndarray
    truth: np.ndarray
    mask: np.ndarray
    noise: float

    def scores(self, image: np.ndarray) -> tuple[float, float]:
        """Return PSNR in dB and SSIM of an image (ny, nx)."""
        return psnr(image, self.truth, mask=self.mask), ssim(image, self.truth, mask=self.mask)


def views(recording: Recording, grids: Mapping[str, Grid], *, longest: int = 1) -> list[View]:
    """Return slices of one turn of a recording."""
    windows = Windows(recording, longest=longest)
    made = []
    for name, grid in grids.items():
        mask, (u, v) = seen(recording.setup, grid), windows.halves(grid)
        made.append(
            View(
                name=name,
                grid=grid,
                windows=windows,
                raw=windows.slab(grid)[0, 0],
                truth=recording.truth(grid, until=windows.target),
                mask=mask,
                noise=float(np.std((u - v)[mask])) / 2,
            )
        )
    return made


def denoised(applier: Applier, view: View) -> np.ndarray:
    """Return what a network makes of a slice, float32 (ny, nx)."""
    preset = applier.preset
    return applier.apply(view.windows.slab(view.grid, frames=preset.frames, depth=preset.depth))


def total_variation(view: View) -> np.ndarray:
    """Return the slice by total variation, with the weight that is best against the truth: better than anyone gets."""
    from skimage.restoration import denoise_tv_chambolle

    spread = float(np.std(view.truth[view.mask]))
    tried = [
        denoise_tv_chambolle(view.raw / spread, weight=float(weight), max_num_iter=TV_ITERATIONS) * spread
        for weight in TV_WEIGHTS
    ]
    return max(tried, key=lambda image: view.scores(image)[0])


def bm3d(view: View) -> np.ndarray | None:
    """Return the slice by BM3D, told how much noise there is; None when it is not installed."""
    if not installed("bm3d"):
        return None
    return np.asarray(import_module("bm3d").bm3d(view.raw, sigma_psd=view.noise))
