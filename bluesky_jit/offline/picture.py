"""Draw the middle slices of a volume, to see at a glance what came out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from bluesky_jit.tomo.grid import Grid

LOW, HIGH = 0.5, 99.5
"""Percentiles of the middle slice that black and white stand for: a few bright grains must not hide the rest."""
FLAT = 1 / 20
"""Height of a volume, as part of its width, below which an upright slice is only a line."""


class MiddleSlices:
    """Keep the three middle slices of a volume (nz, ny, nx) in 1/mm while it is made, plane by plane."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        nz, ny, nx = shape
        self.xy, self.xz, self.yz = (np.zeros(size, dtype=np.float32) for size in ((ny, nx), (nz, nx), (nz, ny)))

    def take(self, first: int, planes: np.ndarray) -> None:
        """Take what they need of planes (n, ny, nx) from number `first` on."""
        nz, (ny, nx) = len(self.xz), self.xy.shape
        end = first + len(planes)
        if first <= nz // 2 < end:
            self.xy = planes[nz // 2 - first].copy()
        self.xz[first:end] = planes[:, ny // 2, :]
        self.yz[first:end] = planes[:, :, nx // 2]

    def draw(self, grid: Grid, path: Path) -> None:
        """Write a picture of them, in one contrast; grid: the volume's."""
        low, high = (float(value) for value in np.percentile(self.xy, [LOW, HIGH]))
        slices = [("XY", "x", "y", self.xy)]
        if len(self.xz) > len(self.xy) * FLAT:
            slices += [("XZ", "x", "z", self.xz), ("YZ", "y", "z", self.yz)]
        figure = Figure(figsize=(4 * len(slices) + 1, 4.2), layout="constrained")
        for number, (name, across, up, image) in enumerate(slices, 1):
            axes = figure.add_subplot(1, len(slices), number)
            extent = (*_ends_mm(grid, "xyz".index(across)), *_ends_mm(grid, "xyz".index(up)))
            drawn = axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower", extent=extent)
            axes.set(title=f"{name}, middle", xlabel=f"{across} / mm", ylabel=f"{up} / mm")
            if number == len(slices):
                figure.colorbar(drawn, ax=axes, label="attenuation / (1/mm)", shrink=0.8)
        figure.savefig(path, dpi=120)


def _ends_mm(grid: Grid, axis: int) -> tuple[float, float]:
    """Return where the voxels of a volume begin and end along x, y or z."""
    step = (grid.x_step, grid.y_step, grid.z_step)[axis][axis]
    n = grid.shape[2 - axis]
    first = grid.origin[axis] - step / 2
    return first, first + n * step
