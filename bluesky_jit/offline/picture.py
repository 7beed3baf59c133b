"""Draw what came out, to see it at a glance: the middle slices of a volume, a slice raw and denoised."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Set a slice beside the same slice denoised, or beside the reason why there is none.

    raw, denoised: (ny, nx) on grid; radius: of what every projection sees; titles: of both; unit: of lengths.
    """

    raw: np.ndarray
    denoised: np.ndarray | None
    reason: str
    grid: Grid
    radius: float
    titles: tuple[str, str]
    unit: str

    def draw(self, path: Path, heading: str) -> None:
        """Write a picture of both, in one contrast: that of the raw slice where every projection sees it."""
        inside = np.hypot(*(self.grid.points()[0, ..., axis] for axis in (0, 1))) <= self.radius
        low, high = (float(value) for value in np.percentile(self.raw[inside], [LOW, HIGH]))
        figure = Figure(figsize=(10, 4.6), layout="constrained")
        extent = (*_ends_mm(self.grid, 0), *_ends_mm(self.grid, 1))
        panels = figure.subplots(1, 2)
        for axes, title, image in zip(panels, self.titles, (self.raw, self.denoised), strict=True):
            axes.set_title(title, fontsize=10)
            if image is None:
                axes.set_axis_off()
                axes.text(0.5, 0.5, textwrap.fill(self.reason, 40), ha="center", va="center", fontsize=10)
                continue
            seen = np.ma.masked_where(~inside, image)
            axes.imshow(seen, cmap="gray", vmin=low, vmax=high, origin="lower", extent=extent)
            axes.set(xlabel=f"x / {self.unit}", ylabel=f"y / {self.unit}")
        figure.colorbar(panels[0].images[0], ax=panels, label=f"attenuation / (1/{self.unit})", shrink=0.9)
        figure.suptitle(heading, fontsize=11)
        figure.savefig(path, dpi=110)


def _ends_mm(grid: Grid, axis: int) -> tuple[float, float]:
    """Return where the voxels of a volume begin and end along x, y or z."""
    step = (grid.x_step, grid.y_step, grid.z_step)[axis][axis]
    n = grid.shape[2 - axis]
    first = grid.origin[axis] - step / 2
    return first, first + n * step
