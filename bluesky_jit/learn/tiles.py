"""Cutting an image into tiles that a network makes the same of as of the whole."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from bluesky_jit.learn.networks import Network

Cut = tuple[slice, slice]


def in_tiles(network: Network, x: torch.Tensor, points: int) -> torch.Tensor:
    """Return what a network makes of x (1, channels, ny, nx), float32 (ny, nx), in tiles of about that many points.

    Tiles overlap by the network's reach and begin where its coarsest points do, so the result is that of the whole.
    """
    ny, nx = x.shape[-2:]
    if ny * nx <= points:
        return network(x)[0, 0].float()
    output = torch.empty(ny, nx)
    for (rows, columns), (above, left) in cuts(ny, nx, reach=network.reach, stride=network.stride, points=points):
        tile = network(x[..., above, left])[0, 0]
        inner = (_within(rows, above), _within(columns, left))
        output[rows, columns] = tile[inner]
    return output


def cuts(ny: int, nx: int, *, reach: int, stride: int, points: int) -> Iterator[tuple[Cut, Cut]]:
    """Yield, for each tile, which points it is to give and which it has to be given for that.

    A tile gives at least as many points a side as its margins take, even when that is more than asked for.
    """
    margin = math.ceil(reach / stride) * stride
    width = min(nx, _floor(math.isqrt(points) - 2 * margin, stride, least=margin))
    height = min(ny, _floor(points // min(nx, width + 2 * margin) - 2 * margin, stride, least=margin))
    for row in range(0, ny, height):
        for column in range(0, nx, width):
            yield (
                (slice(row, min(row + height, ny)), slice(column, min(column + width, nx))),
                (
                    slice(max(row - margin, 0), min(row + height + margin, ny)),
                    slice(max(column - margin, 0), min(column + width + margin, nx)),
                ),
            )


def _floor(value: int, stride: int, *, least: int) -> int:
    return max(value // stride * stride, least)


def _within(inner: slice, outer: slice) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)
