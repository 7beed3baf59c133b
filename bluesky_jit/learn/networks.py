"""The small networks, and what every network here says of itself."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Network(nn.Module):
    """Map slices given as channels (n, nt·nz, ny, nx) to the denoised middle slice (n, 1, ny, nx)."""

    reach: int
    """How far, in points, a point of the input can be felt in the output."""
    stride: int
    """Points that become one where the network is coarsest; moved by a multiple of this, an image gives the same."""
    divisor: int = 1
    """Sides of the input must be multiples of this."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return super().__call__(x)


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
        self.whole = 2 * body.divisor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ny, nx = x.shape[-2:]
        below, right = -ny % self.whole, -nx % self.whole
        if below or right:
            x = functional.pad(x, (0, right, 0, below), mode="reflect")
        x = functional.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        return functional.pixel_shuffle(self.body(x), 2)[..., :ny, :nx]


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Make a 3×3 convolution without bias: a network of these and ReLU obeys f(k·x) = k·f(x) for k ≥ 0.

    That lets a network trained on slices of half the angles be applied to slices of all of them, which are less noisy.
    """
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


class Plain(Network):
    """Convolve five times with ReLU between."""

    stride = 1
    reach = 5

    def __init__(self, inputs: int, features: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [convolution(inputs, features)]
        for width in (features, features, features, outputs):
            layers += [nn.ReLU(), convolution(features, width)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class OneLevelUNet(Network):
    """Look at the image at two resolutions: encode, halve, think, double, join with what was encoded, decode."""

    stride = divisor = 2
    reach = 7

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
