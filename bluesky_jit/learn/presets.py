"""The presets: named networks with the recipes that train them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch

from bluesky_jit.learn.networks import HalfResolution, Network, OneLevelUNet, Plain
from bluesky_jit.learn.unet import MiddleOfVolume, UNet


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Say how a network is trained: Adam on the squared error, after a linear warm-up, averaged for inference."""

    learning_rate: float = 6e-3
    betas: tuple[float, float] = (0.9, 0.95)
    warm_up_steps: int = 20
    """0: the full learning rate from the first step on."""
    average_decay: float = 0.99
    """Of the moving average of the weights; a longer memory lags behind the sample and looks like slow learning.
    0: the weights themselves."""
    bfloat16: bool = True
    """Whether to compute the gradient in bfloat16 where the processor does so natively; the weights stay float32."""


PAPER = Recipe(learning_rate=1e-4, betas=(0.9, 0.999), warm_up_steps=0, average_decay=0.0, bfloat16=False)
"""Adam as the paper has it (Software set-up). It names the learning rate only: the rest is as Adam was published."""

DEEP = Recipe(learning_rate=3e-3, betas=(0.9, 0.99), warm_up_steps=50)
"""For networks of many layers, which twice the learning rate upsets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperUNet:
    """Make the paper's U-Net: of 2D convolutions, or, for more than one slice or frame, of 3D ones."""

    features: int = 8

    def __call__(self, inputs: int) -> Network:
        if inputs == 1:
            return UNet(features=self.features)
        return MiddleOfVolume(UNet(features=self.features, dimensions=3))


def channels_last(weight: torch.Tensor) -> torch.memory_format:
    """Return the order in memory, of a convolution's weight, that CPUs and GPUs are quickest with."""
    return {4: torch.channels_last, 5: torch.channels_last_3d}[weight.ndim]


def unet_fast(inputs: int) -> Network:
    """Make the default: a U-Net of one level below the first, and 16 features, at half resolution."""
    return HalfResolution(OneLevelUNet(4 * inputs, 16, 4))


def unet_half(inputs: int) -> Network:
    """Make a U-Net of two levels and 16 features at half resolution."""
    return HalfResolution(UNet(inputs=4 * inputs, outputs=4, features=16, levels=2))


def fast(inputs: int) -> Network:
    """Make the plain net: five convolutions of 16 features at half resolution."""
    return HalfResolution(Plain(4 * inputs, 16, 4))


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Name a network and its recipe. Its input is `frames` (nt) times `depth` (nz) slices, given as channels."""

    name: str
    network: Callable[[int], Network] | None
    """Makes the network for a number of slices; None: this preset denoises without one."""
    recipe: Recipe = field(default_factory=Recipe)
    frames: int = 1
    depth: int = 1
    patch: int = 20
    """Points along each side of a training patch."""
    normalisation: Literal["noise", "none"] = "noise"
    """noise: the network sees (slice − median) / noise of one half; none: it sees the slice as it is, in 1/mm."""

    def build(self) -> Network:
        """Make the network, with weights that are not to be relied on."""
        if self.network is None:
            raise ValueError(f"preset {self.name} has no network: nothing can be built or loaded for it")
        network = self.network(self.frames * self.depth)
        for weight in network.parameters():
            weight.data = weight.data.to(memory_format=channels_last(weight))
        return network


def _of_the_paper(name: str, *, features: int = 8, frames: int = 1, depth: int = 1, patch: int = 20) -> Preset:
    return Preset(
        name=name,
        network=PaperUNet(features=features),
        recipe=PAPER,
        frames=frames,
        depth=depth,
        patch=patch,
        normalisation="none",
    )


_ALL = (
    Preset(name="unet-fast", network=unet_fast),
    Preset(name="unet-fast-z3", network=unet_fast, depth=3),
    Preset(name="unet-fast-t3", network=unet_fast, frames=3),
    Preset(name="fast", network=fast),
    Preset(name="fast-z3", network=fast, depth=3),
    Preset(name="fast-t3", network=fast, frames=3),
    Preset(name="unet-half", network=unet_half, recipe=DEEP),
    Preset(name="standard-tuned", network=PaperUNet(), recipe=DEEP),
    _of_the_paper("standard"),
    _of_the_paper("c16", features=16),
    _of_the_paper("c32", features=32),
    *(_of_the_paper(f"v{patch}", patch=patch) for patch in (30, 40, 60, 100, 150)),
    *(_of_the_paper(f"z{depth}", depth=depth) for depth in (3, 5, 7)),
    *(_of_the_paper(f"t{frames}", frames=frames) for frames in (3, 5, 7)),
    Preset(name="tv", network=None),
    Preset(name="tv-z3", network=None, depth=3),
)

PRESETS = {preset.name: preset for preset in _ALL}


def preset_named(name: str) -> Preset:
    """Return the preset of a name."""
    if name not in PRESETS:
        raise ValueError(f"learn.preset is {name!r}: give one of {', '.join(PRESETS)}")
    return PRESETS[name]
