"""The small networks, and what every network here says of itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

BLUR = 1.5
"""Standard deviation, in points, of the Gaussian that the small networks begin as.

Of 1.0, 1.5, 2.0 and 2.5 it had the best accuracy on both simulated experiments before the first step, 0.59 and 0.61.
"""

FUSED = getattr(torch.ops.mkldnn, "_convolution_pointwise", None) if torch.backends.mkldnn.is_available() else None
"""oneDNN's convolution with an activation, where PyTorch was built with it.

It makes the same, and the default network's slices of 1024×1024 in a third less time.
"""


class Network(nn.Module):
    """Map slices given as channels (n, nt·nz, ny, nx) to the denoised middle slice (n, 1, ny, nx)."""

    reach: int
    """How far, in points, a point of the input can be felt in the output."""
    stride: int
    """Points that become one where the network is coarsest; moved by a multiple of this, an image gives the same."""
    values: int
    """Numbers held at a time for each point of a slice, at most."""
    divisor: int = 1
    """Sides of the input must be multiples of this."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return super().__call__(x)

    def begin(self) -> None:
        """Change freshly drawn weights to those that learning is quickest from; by default they stay as they are."""


class Body(Network):
    """Do the work of `HalfResolution`, and say which convolutions an image passes on its way."""

    def path(self) -> Sequence[nn.Conv2d]:
        """Return the convolutions from input to output at full size, in their order."""
        raise NotImplementedError

    def aside(self) -> Sequence[nn.Conv2d]:
        """Return those whose output is added to what is on the path."""
        return ()


class HalfResolution(Network):
    """Run a body at half resolution: (n, c, ny, nx) → 4c channels of half the size → 4 channels → (n, 1, ny, nx).

    An image whose sides are no multiple of what the body divides by is extended at the bottom and right by reflection
    (without repeating the edge), and the result is cropped back: the points that are kept stay where they were.
    """

    def __init__(self, body: Network) -> None:
        super().__init__()
        self.body = body
        self.stride = 2 * body.stride
        self.reach = 2 * body.reach + 1
        self.values = math.ceil(body.values / 4)
        self.whole = 2 * body.divisor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ny, nx = x.shape[-2:]
        below, right = -ny % self.whole, -nx % self.whole
        if below or right:
            x = functional.pad(x, (0, right, 0, below), mode="reflect")
        x = functional.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        return _at_full_size(self.body(x))[..., :ny, :nx]

    def begin(self) -> None:
        """Begin as a Gaussian blur of the middle slice, which eight features carry through; the others stay random."""
        if isinstance(self.body, Body):
            _begin_as_blur(self.body)


class Plain(Body):
    """Convolve five times with ReLU between."""

    stride = 1
    reach = 5

    def __init__(self, inputs: int, features: int, outputs: int) -> None:
        super().__init__()
        widths = (inputs, features, features, features, features, outputs)
        self.layers = nn.ModuleList(convolution(*pair) for pair in pairwise(widths))
        self.values = 2 * features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *between, last = self.path()
        for layer in between:
            x = rectified(layer, x)
        return last(x)

    def path(self) -> Sequence[nn.Conv2d]:
        return [layer for layer in self.layers if isinstance(layer, nn.Conv2d)]


class OneLevelUNet(Body):
    """Look at the image at two resolutions: encode, halve, think, double, add to what was encoded, decode."""

    stride = divisor = 2
    reach = 9

    def __init__(self, inputs: int, features: int, outputs: int) -> None:
        super().__init__()
        self.first = convolution(inputs, features)
        self.second = convolution(features, features)
        self.deep = convolution(features, features)
        self.third = convolution(features, features)
        self.fourth = convolution(features, features)
        self.last = convolution(features, outputs)
        self.values = 3 * features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = rectified(self.second, rectified(self.first, x))
        coarse = rectified(self.deep, functional.avg_pool2d(fine, 2))
        # Adding is cheaper than concatenating, whose gradient comes in two parts that each have to be copied.
        x = functional.interpolate(coarse, scale_factor=2.0, mode="nearest").add_(fine)
        return self.last(rectified(self.fourth, rectified(self.third, x)))

    def path(self) -> Sequence[nn.Conv2d]:
        return self.first, self.second, self.third, self.fourth, self.last

    def aside(self) -> Sequence[nn.Conv2d]:
        return (self.deep,)


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Make a 3×3 convolution without bias: a network of these and ReLU obeys f(k·x) = k·f(x) for k ≥ 0.

    That lets a network trained on slices of half the angles be applied to slices of all of them, which are less noisy.
    """
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def rectified(layer: nn.Conv2d | nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
    """Convolve without bias, and set what is below zero to zero; while nothing is learnt, on CPUs, in one pass."""
    if FUSED is None or torch.is_grad_enabled() or x.device.type != "cpu":
        return functional.relu_(layer(x))
    return FUSED(x, layer.weight, None, layer.padding, layer.stride, layer.dilation, layer.groups, "relu", [], "")


def _at_full_size(x: torch.Tensor) -> torch.Tensor:
    """Return (n, 4, ny, nx) as (n, 1, 2·ny, 2·nx): pixel_shuffle, in one copy, of what has its channels last."""
    n, _, ny, nx = x.shape
    return x.permute(0, 2, 3, 1).reshape(n, ny, nx, 2, 2).transpose(2, 3).reshape(n, 1, 2 * ny, 2 * nx)


def _begin_as_blur(body: Body) -> None:
    """Set the weights so that features 0 to 7 carry the four points of a 2×2 cell, above and below zero by itself.

    ReLU lets each half pass, and the last convolution blurs their difference.
    """
    first, *between, last = body.path()
    middle = 4 * (first.in_channels // 4 // 2)
    with torch.no_grad():
        for layer in (first, *between, *body.aside()):
            layer.weight[:8] = 0.0
        for feature in range(8):
            first.weight[feature, middle + feature // 2, 1, 1] = -1.0 if feature % 2 else 1.0
            for layer in between:
                layer.weight[feature, feature, 1, 1] = 1.0
        blur = _blur()
        last.weight[:, 0:8:2] = blur
        last.weight[:, 1:8:2] = -blur


def _blur() -> torch.Tensor:
    """Return a Gaussian's weights (4, 4, 3, 3): of each point of nine 2×2 cells in each point of the middle one."""
    row = torch.arange(2).repeat_interleave(2)
    column = torch.arange(2).repeat(2)
    cell = 2 * torch.arange(-1, 2)
    dy = cell[None, None, :, None] + row[None, :, None, None] - row[:, None, None, None]
    dx = cell[None, None, None, :] + column[None, :, None, None] - column[:, None, None, None]
    weights = torch.exp(-(dy**2 + dx**2) / (2 * BLUR**2))
    return weights / weights.sum(dim=(1, 2, 3), keepdim=True)
