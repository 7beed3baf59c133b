"""One training step: normalise, forward, backward, Adam and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bluesky_jit.learn.bfloat16 import has_bfloat16
from bluesky_jit.learn.presets import Recipe

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

LARGEST_LOSS = 1e8
"""Loss beyond which a batch holds no picture; Adam would remember the gradient for thousands of steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """Say what became of a step: refused ones change nothing. norm: of the gradient."""

    loss: float
    norm: float
    refused: bool


class Step:
    """Take steps with a network, its averaged twin and Adam.

    Nothing here waits for a number or asks what it is, so that `CudaStep` can record it once and replay it: whether a
    step is refused is a tensor, too.
    """

    def __init__(self, network: nn.Module, average: nn.Module, recipe: Recipe, loss: Loss) -> None:
        """Begin; loss: what a step makes smaller, given the network's output and the target in its units."""
        self._network = network
        self._weights = list(network.parameters())
        self._averages = list(average.parameters())
        self._loss = loss
        self._device = self._weights[0].device
        self._bfloat16 = recipe.bfloat16 and self._device.type == "cpu" and has_bfloat16()
        self._u = self._v = torch.empty(0)
        # mean, scale, learning rate, share of the new weights in the average, 1 to refuse whatever comes
        self._numbers = torch.zeros(5, device=self._device)
        self._result = torch.zeros(3, device=self._device)
        self._optimiser = torch.optim.Adam(
            self._weights,
            lr=self._numbers[2],
            betas=recipe.betas,
            fused=True,
            capturable=self._device.type == "cuda",
        )

    def take(
        self, u: torch.Tensor, v: torch.Tensor, *, mean: float, scale: float, learning_rate: float, share: float
    ) -> StepResult:
        """Take one step towards v (n, 1, ny, nx) from u (n, channels, ny, nx), both in 1/mm.

        share: of the new weights in the averaged ones.
        """
        self._place(u, v)
        self._numbers.copy_(torch.tensor((mean, scale, learning_rate, share, 0.0)))
        self._run()
        loss, norm, refused = self._result.tolist()
        return StepResult(loss=loss, norm=norm, refused=bool(refused))

    def state_dict(self) -> dict[int, Any]:
        """Return what Adam remembers of each weight."""
        return self._optimiser.state_dict()["state"]

    def load_state_dict(self, state: dict[int, Any]) -> None:
        """Go on from what `state_dict` returned."""
        groups = self._optimiser.state_dict()["param_groups"]
        # It would go on with the very tensors that it is given, and gives the learning rate a copy.
        self._optimiser.load_state_dict({"state": deepcopy(state), "param_groups": groups})
        for group in self._optimiser.param_groups:
            group["lr"] = self._numbers[2]

    def _place(self, u: torch.Tensor, v: torch.Tensor) -> None:
        self._u, self._v = u, v

    def _run(self) -> None:
        self._compute()

    def _compute(self) -> None:
        mean, scale, _, share, withheld = self._numbers.unbind()
        self._optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._bfloat16):
            output = self._network((self._u - mean) / scale)
        loss = self._loss(output.float(), (self._v - mean) / scale)
        loss.backward()
        with torch.no_grad():
            norm = nn.utils.get_total_norm([weight.grad for weight in self._weights if weight.grad is not None])
            # Adam squares the gradient. (A comparison with NaN is false.)
            sound = (loss < LARGEST_LOSS) & norm.square().isfinite()
            refused = torch.maximum((~sound).to(loss.dtype), withheld)
            # The fused Adam leaves everything as it was when it is told of an infinity.
            self._optimiser.found_inf = refused  # type: ignore[attr-defined]
            self._optimiser.step()
            share = share * (1 - refused)
            for average, weight in zip(self._averages, self._weights, strict=True):
                average.lerp_(weight, share)
            self._result.copy_(torch.stack((loss.detach(), norm, refused)))
