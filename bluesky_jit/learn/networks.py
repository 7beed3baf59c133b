"""The networks, and the presets: a named network with the recipe that trains it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional

SMALLEST = 4
"""Points along a side that an image must have: reflection needs more points than it adds."""


class HalfResolution(nn.Module):
    """Run a body at half resolution: (n, c, ny, nx) → 4c channels of half the size → 4 channels → (n, 1, ny, nx).

    An image whose sides are no multiple of what the body divides by is extended at the bottom and right by reflection
    (without repeating the edge), and the result is cropped back: the points that are kept stay where they were.
    """

    def __init__(self, body: nn.Module, *, divides_by: int = 1) -> None:
        super().__init__()
        self.body = body
        self.multiple = 2 * divides_by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ny, nx = x.shape[-2:]
        below, right = -ny % self.multiple, -nx % self.multiple
        if below or right:
            x = functional.pad(x, (0, right, 0, below), mode="reflect")
        x = functional.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        return functional.pixel_shuffle(self.body(x), 2)[..., :ny, :nx]


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Make a 3×3 convolution without bias: a network of these and ReLU obeys f(k·x) = k·f(x) for k ≥ 0.

    That lets a network trained on slices of half the angles be applied to slices of all of them, which are less noisy.
    """
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


class OneLevelUNet(nn.Module):
    """Look at the image at two resolutions: encode, halve, think, double, join with what was encoded, decode."""

    def __init__(self, inputs: int, features: int, outputs: int) -> None:
        super().__init__()
        self.encode = convolution(inputs, features)
        self.down = nn.Conv2d(features, features, 2, stride=2, bias=False)
        self.deep = convolution(features, features)
        self.up = nn.ConvTranspose2d(features, features, 2, stride=2, bias=False)
        self.join = convolution(2 * features, features)
        self.decode = convolution(features, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = functional.relu(self.encode(x))
        coarse = functional.relu(self.down(fine))
        coarse = functional.relu(self.deep(coarse))
        joined = torch.cat([fine, functional.relu(self.up(coarse))], dim=1)
        return self.decode(functional.relu(self.join(joined)))


def unet_fast(inputs: int) -> nn.Module:
    """Make the default: a U-Net of one level and 16 features at half resolution."""
    return HalfResolution(OneLevelUNet(4 * inputs, 16, 4), divides_by=2)


def fast(inputs: int) -> nn.Module:
    """Make the plain net: five convolutions of 16 features at half resolution."""
    layers: list[nn.Module] = [convolution(4 * inputs, 16)]
    for outputs in (16, 16, 16, 4):
        layers += [nn.ReLU(), convolution(16, outputs)]
    return HalfResolution(nn.Sequential(*layers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Say how a network is trained: Adam on the squared error, after a linear warm-up, averaged for inference."""

    learning_rate: float = 3e-3
    betas: tuple[float, float] = (0.9, 0.99)
    warm_up_steps: int = 50
    average_decay: float = 0.99
    """Of the moving average of the weights; a longer memory lags behind the sample and looks like slow learning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Name a network and its recipe. Its input is `frames` (nt) times `depth` (nz) slices, given as channels."""

    name: str
    network: Callable[[int], nn.Module]
    recipe: Recipe = field(default_factory=Recipe)
    frames: int = 1
    depth: int = 1

    def build(self) -> nn.Module:
        """Make the network, with weights that are not to be relied on."""
        return self.network(self.frames * self.depth).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


PRESETS = {
    preset.name: preset for preset in (Preset(name="unet-fast", network=unet_fast), Preset(name="fast", network=fast))
}


def preset_named(name: str) -> Preset:
    """Return the preset of a name."""
    if name not in PRESETS:
        raise ValueError(f"learn.preset is {name!r}: give one of {', '.join(PRESETS)}")
    return PRESETS[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Carry a trained network from the trainer to whoever applies it. Nobody writes to its tensors.

    mean and scale (1/mm) normalise: the network sees (slice − mean) / scale.
    """

    preset: str
    step: int
    mean: float
    scale: float
    tensors: dict[str, torch.Tensor]


def initialise(network: nn.Module, seed: int) -> None:
    """Draw the weights from a seed, with a generator of its own.

    This is PyTorch's own distribution: He's wider one starts with so large an output that learning takes twice as long.
    """
    generator = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)


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


def network_input(slabs: np.ndarray, preset: Preset, *, mean: float, scale: float) -> torch.Tensor:
    """Return slabs (n, nt, nz, ny, nx), in 1/mm, as channels (n, nt·nz, ny, nx) in the network's units."""
    require_fit(slabs.shape, preset)
    # An absurd value may become infinite here; what is made of it says so.
    with np.errstate(over="ignore"):
        scaled = (np.asarray(slabs, dtype=np.float32) - np.float32(mean)) / np.float32(scale)
    return torch.from_numpy(scaled).reshape(len(slabs), -1, *slabs.shape[-2:])
