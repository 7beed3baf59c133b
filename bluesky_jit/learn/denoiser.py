"""Whole-slice inference with the newest weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from bluesky_jit.learn.bfloat16 import has_bfloat16
from bluesky_jit.learn.network_input import network_input
from bluesky_jit.learn.presets import Preset, channels_last, preset_named
from bluesky_jit.learn.weights import Weights

BFLOAT16_LIMIT = 50.0
"""Largest contrast, in units of the noise, that bfloat16 is used for.

Its rounding is about 3e-4 (rms) of the contrast: at this limit 0.015 of the noise, where a denoiser leaves 0.2 or more.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """Hold networks with the weights that they were made from, so that all change together."""

    weights: Weights
    exact: nn.Module
    quick: nn.Module | None


class Denoiser:
    """Apply the newest weights to whole slices, with a network of its own that training never waits for.

    `load` may be called by another thread than `apply`: a slice is made with all of the old or all of the new weights.
    """

    def __init__(self, preset: Preset | str, *, bfloat16: bool | None = None) -> None:
        torch.set_num_threads(1)
        self.preset = preset_named(preset) if isinstance(preset, str) else preset
        self._bfloat16 = has_bfloat16() if bfloat16 is None else bfloat16
        self._loaded: _Loaded | None = None

    @property
    def step(self) -> int:
        """Return the training step of the weights in use; 0 when there are none."""
        loaded = self._loaded
        return 0 if loaded is None else loaded.weights.step

    def load(self, weights: Weights) -> None:
        """Use these weights from the next slice on."""
        if weights.preset != self.preset.name:
            raise ValueError(f"the weights are of preset {weights.preset} and this denoiser of {self.preset.name}")
        self._loaded = _Loaded(
            weights=weights,
            exact=self._network_of(weights, torch.float32),
            quick=self._network_of(weights, torch.bfloat16) if self._bfloat16 else None,
        )

    def apply(self, slab: np.ndarray) -> np.ndarray:
        """Return the denoised middle slice, float32 (ny, nx), of a slab, float32 (nt, nz, ny, nx), both in 1/mm."""
        loaded = self._loaded
        if loaded is None:
            raise RuntimeError("the denoiser has no weights yet: load a snapshot of a trainer")
        mean, scale = loaded.weights.mean, loaded.weights.scale
        with torch.inference_mode():
            x = network_input(slab[None], self.preset, mean=mean, scale=scale)
            if loaded.quick is not None and float(x.abs().max()) <= BFLOAT16_LIMIT:
                output = loaded.quick(x.to(torch.bfloat16)).float()
            else:
                output = loaded.exact(x)
        return output[0, 0].numpy() * np.float32(scale) + np.float32(mean)

    def _network_of(self, weights: Weights, precision: torch.dtype) -> nn.Module:
        with torch.device("meta"):
            network = self.preset.build()
        tensors = {
            name: tensor.to(precision, copy=True, memory_format=channels_last(tensor))
            for name, tensor in weights.tensors.items()
        }
        network.load_state_dict(tensors, assign=True)
        return network.eval().requires_grad_(False)
