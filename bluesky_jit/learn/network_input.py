"""From slabs to what a network takes."""

from __future__ import annotations

import numpy as np
import torch

from bluesky_jit.learn.presets import Preset

SMALLEST = 4
"""Points along a side that an image must have: reflection needs more points than it adds."""


def require_fit(shape: tuple[int, ...], preset: Preset) -> None:
    """Refuse slabs (n, nt, nz, ny, nx) that a preset's network cannot take."""
    _, nt, nz, ny, nx = shape
    if (nt, nz) != (preset.frames, preset.depth):
        raise ValueError(
            f"preset {preset.name} takes {preset.frames} frames of {preset.depth} slices, and was given {nt} of {nz}: "
            "reconstruct slabs of that depth or choose another preset"
        )
    if min(ny, nx) < SMALLEST:
        raise ValueError(f"the image is {ny}×{nx}: give at least {SMALLEST} points each way")


def image_input(slabs: np.ndarray, preset: Preset, *, mean: float, scale: float) -> torch.Tensor:
    """Return what network_input does of images of any size: small ones are extended at the bottom and right.

    Their last row and column are repeated, and what is made of them is to be cropped back.
    """
    ny, nx = slabs.shape[-2:]
    below, right = max(0, SMALLEST - ny), max(0, SMALLEST - nx)
    if below or right:
        slabs = np.pad(slabs, ((0, 0),) * 3 + ((0, below), (0, right)), mode="edge")
    return network_input(slabs, preset, mean=mean, scale=scale)


def network_input(slabs: np.ndarray, preset: Preset, *, mean: float, scale: float) -> torch.Tensor:
    """Return slabs (n, nt, nz, ny, nx), in 1/mm, as channels (n, nt·nz, ny, nx) in the network's units."""
    require_fit(slabs.shape, preset)
    # An absurd value may become infinite here; what is made of it says so.
    with np.errstate(over="ignore"):
        scaled = (np.asarray(slabs, dtype=np.float32) - np.float32(mean)) / np.float32(scale)
    return torch.from_numpy(scaled).reshape(len(slabs), -1, *slabs.shape[-2:])
