"""The U-Net of Graas et al. (2023), in two and three dimensions."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from bluesky_jit.learn.networks import Network, rectified

KINDS: dict[int, tuple[type[nn.Conv2d | nn.Conv3d], type[nn.ConvTranspose2d | nn.ConvTranspose3d]]] = {
    2: (nn.Conv2d, nn.ConvTranspose2d),
    3: (nn.Conv3d, nn.ConvTranspose3d),
}


class Level(nn.Module):
    """Hold the three encoding and three decoding convolutions of one level.

    Encoding: two convolutions, then the strided one. Decoding: the transposed one, then two convolutions, the first of
    which also takes what the level had encoded before it halved it.
    """

    def __init__(self, inputs: int, features: int, outputs: int, *, dimensions: int) -> None:
        super().__init__()
        convolution, transposed = KINDS[dimensions]
        self.first = convolution(inputs, features, 3, padding=1, bias=False)
        self.second = convolution(features, features, 3, padding=1, bias=False)
        self.down = convolution(features, features, 3, stride=2, padding=1, bias=False)
        self.up = transposed(features, features, 3, stride=2, padding=1, bias=False)
        self.join = convolution(2 * features, features, 3, padding=1, bias=False)
        self.last = convolution(features, outputs, 3, padding=1, bias=False)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return rectified(self.second, rectified(self.first, x))

    def halve(self, x: torch.Tensor) -> torch.Tensor:
        return rectified(self.down, x)

    def decode(self, coarse: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Return the level's output before its ReLU; coarse is doubled to the size of skip."""
        up = functional.relu_(self.up(coarse, output_size=skip.shape[2:]))
        return self.last(rectified(self.join, torch.cat([skip, up], dim=1)))


class UNet(Network):
    """Halve `levels` times and double again, with skips; a level has twice the features of the one above it.

    Padding rule, for each dimension by itself: a convolution adds one zero at each end; a strided one makes ceil(n / 2)
    points of n; the transposed one makes n of them again, by an output padding of 1 if n is even and 0 if it is odd.
    So any size will do, and nothing is added to the image or cropped from it.
    """

    def __init__(
        self, *, inputs: int = 1, outputs: int = 1, features: int = 8, levels: int = 3, dimensions: int = 2
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        above_in, above_out = inputs, outputs
        for level in range(levels):
            width = features * 2**level
            self.levels.append(Level(above_in, width, above_out, dimensions=dimensions))
            above_in = above_out = width
        self.stride = 2**levels
        # While the first level joins: the skip, what came up, and both together.
        self.values = 4 * features
        # Each of a level's six convolutions reaches one of its points, 2^level of the image's.
        self.reach = 6 * (2**levels - 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for level in self._levels():
            skips.append(level.encode(x))
            x = level.halve(skips[-1])
        for number, level in reversed(list(enumerate(self._levels()))):
            x = level.decode(x, skips[number])
            x = x if number == 0 else functional.relu_(x)
        return x

    def _levels(self) -> list[Level]:
        return [level for level in self.levels if isinstance(level, Level)]


class MiddleOfVolume(Network):
    """Give slices (n, d, ny, nx) to a 3D network as one channel of d slices, and keep the middle one of its output."""

    def __init__(self, body: UNet) -> None:
        super().__init__()
        self.body = body
        self.stride = body.stride
        self.reach = body.reach
        self.values = body.values

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x[:, None])[:, :, x.shape[1] // 2]
