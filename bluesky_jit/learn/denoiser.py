"""Whole-slice inference with the newest weights."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field

import numpy as np
import torch

from bluesky_jit.learn.bfloat16 import has_bfloat16
from bluesky_jit.learn.memory import keep_freed_memory
from bluesky_jit.learn.network_input import image_input
from bluesky_jit.learn.networks import Network
from bluesky_jit.learn.presets import Preset, channels_last, preset_named
from bluesky_jit.learn.tiles import in_tiles
from bluesky_jit.learn.weights import Weights

logger = logging.getLogger(__name__)

BFLOAT16_ERROR = 0.05
"""Largest error of bfloat16 beside float32, in parts of what the denoiser takes away from a slice (both rms).

What is left of the noise is several times as much, so that nobody can tell.
"""
MEMORY_GB = 0.1
"""By default: larger tiles are slower, because the memory of each layer then comes from the system anew."""
BYTES = 4


@dataclass(slots=True)
class _Trust:
    """Remember up to which contrast bfloat16 was found good enough, and from which on not."""

    good_to: float = 0.0
    bad_from: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """Hold networks with the weights that they were made from, so that all change together."""

    weights: Weights
    exact: Network
    quick: Network | None
    trust: _Trust = field(default_factory=_Trust)


class Denoiser:
    """Apply the newest weights to whole slices, with a network of its own that training never waits for.

    `load` may be called by another thread than `apply`: a slice is made with all of the old or all of the new weights.
    """

    def __init__(self, preset: Preset | str, *, bfloat16: bool | None = None, memory_gb: float = MEMORY_GB) -> None:
        """Begin without weights.

        bfloat16: by default where the processor computes with it natively. memory_gb: beyond this, images are denoised
        in tiles, with the same result.
        """
        torch.set_num_threads(1)
        keep_freed_memory()
        self.preset = preset_named(preset) if isinstance(preset, str) else preset
        self._bfloat16 = has_bfloat16() if bfloat16 is None else bfloat16
        self._memory_gb = memory_gb
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
        before = self._loaded
        # Learning that began anew is looked at anew.
        goes_on = before is not None and weights.step >= before.weights.step
        self._loaded = _Loaded(
            weights=weights,
            exact=self._network_of(weights, torch.float32),
            quick=self._network_of(weights, torch.bfloat16) if self._bfloat16 else None,
            trust=before.trust if before is not None and goes_on else _Trust(),
        )

    def apply(self, slab: np.ndarray) -> np.ndarray:
        """Return the denoised middle slice, float32 (ny, nx), of a slab, float32 (nt, nz, ny, nx), both in 1/mm."""
        loaded = self._loaded
        if loaded is None:
            raise RuntimeError("the denoiser has no weights yet: load a snapshot of a trainer")
        mean, scale = loaded.weights.mean, loaded.weights.scale
        with torch.inference_mode():
            output = self._applied(loaded, image_input(slab[None], self.preset, mean=mean, scale=scale))
        ny, nx = slab.shape[-2:]
        return output[:ny, :nx].numpy() * np.float32(scale) + np.float32(mean)

    def _applied(self, loaded: _Loaded, x: torch.Tensor) -> torch.Tensor:
        """Return what the network makes of x (1, channels, ny, nx): float32 (ny, nx).

        The first slice is made both ways, and so is one of twice the contrast of those before.
        """
        trust, quick = loaded.trust, loaded.quick
        contrast = float(x.abs().max())
        if quick is not None and contrast <= trust.good_to:
            return self._made(quick, x.to(torch.bfloat16))
        exact = self._made(loaded.exact, x)
        if quick is None or not contrast < trust.bad_from:
            return exact
        removed = _rms(exact - x[0, x.shape[1] // 2])
        rounded = self._made(quick, x.to(torch.bfloat16))
        error = _rms(exact - rounded)
        if error <= BFLOAT16_ERROR * removed:
            trust.good_to = 2 * contrast
            return rounded
        if removed > 0:
            trust.bad_from = contrast
            logger.warning(
                "bfloat16 is off by %.1f %% of what preset %s takes away from a slice, and may be by %.0f %%: "
                "slices like this one are denoised in float32, which takes longer",
                100 * error / removed,
                self.preset.name,
                100 * BFLOAT16_ERROR,
            )
        return exact

    def _made(self, network: Network, x: torch.Tensor) -> torch.Tensor:
        bytes_a_point = BYTES * max(network.values, 1) * x.shape[1]
        return in_tiles(network, x, round(1e9 * self._memory_gb / bytes_a_point))

    def _network_of(self, weights: Weights, precision: torch.dtype) -> Network:
        with torch.device("meta"):
            network = self.preset.build()
        tensors = {
            name: tensor.to(precision, copy=True, memory_format=channels_last(tensor))
            for name, tensor in weights.tensors.items()
        }
        network.load_state_dict(tensors, assign=True)
        return network.eval().requires_grad_(False)


def _rms(image: torch.Tensor) -> float:
    return float(image.square().mean().sqrt())
