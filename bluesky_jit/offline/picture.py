"""Draw the middle slices of a volume, to see at a glance what came out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from bluesky_jit.offline.files import Planes

LOW, HIGH = 0.5, 99.5
"""Percentiles of the middle slice that black and white stand for: a few bright grains must not hide the rest."""
FLAT = 1 / 20
"""Height of a volume, as part of its width, below which an upright slice is only a line."""


def draw_slices(volume: Planes, voxel_mm: float, path: Path) -> None:
    """Write a picture of a volume (nz, ny, nx) in 1/mm."""
    nz, ny, nx = volume.shape
    middle = np.asarray(volume[nz // 2])
    low, high = (float(value) for value in np.percentile(middle, [LOW, HIGH]))
    slices = [("XY", "x", "y", middle)]
    if nz > ny * FLAT:
        slices += [
            ("XZ", "x", "z", np.asarray(volume[:, ny // 2, :])),
            ("YZ", "y", "z", np.asarray(volume[:, :, nx // 2])),
        ]
    figure = Figure(figsize=(4 * len(slices) + 1, 4.2), layout="constrained")
    for number, (name, across, up, image) in enumerate(slices, 1):
        axes = figure.add_subplot(1, len(slices), number)
        extent = (0, image.shape[1] * voxel_mm, 0, image.shape[0] * voxel_mm)
        drawn = axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower", extent=extent)
        axes.set(title=f"{name}, middle", xlabel=f"{across} / mm", ylabel=f"{up} / mm")
        if number == len(slices):
            figure.colorbar(drawn, ax=axes, label="attenuation / (1/mm)", shrink=0.8)
    figure.savefig(path, dpi=120)
