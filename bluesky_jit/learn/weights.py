"""What a network has learnt, and where it starts from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from bluesky_jit.learn.networks import Network


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


def initialise(network: Network, seed: int) -> None:
    """Draw the weights from a seed, with a generator of its own, and let the network begin from them as it likes.

    This is PyTorch's own distribution: He's wider one starts with so large an output that learning takes twice as long.
    """
    generator = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
    network.begin()
