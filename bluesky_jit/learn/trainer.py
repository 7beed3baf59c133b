"""Training, a step at a time."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from bluesky_jit.learn import quality
from bluesky_jit.learn.buffer import require_usable
from bluesky_jit.learn.network_input import network_input
from bluesky_jit.learn.presets import Preset, preset_named
from bluesky_jit.learn.weights import Weights, initialise
from bluesky_jit.messages import Pairs

CHECKPOINT_VERSION = 1
SETTLING_BATCHES = 10
"""Batches whose median is the normalisation at first."""
SHARE = 1e-3
"""Share of each later batch in it: a network does not like its input to be moved about."""
LARGEST_LOSS = 1e8
"""Loss beyond which a batch holds no picture; Adam would remember the gradient for thousands of steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """Say what takes slices to the network's units: μ = median(u) and σ = std(u − v) / √2, the noise of one half."""

    mean: float = 0.0
    scale: float = 0.0
    first: tuple[tuple[float, float], ...] = ()
    """The mean and scale of each of the first batches."""

    def following(self, pairs: Pairs) -> Normalisation:
        """Return the normalisation that has seen one more batch; a spoilt batch among good ones hardly moves it."""
        mean = float(np.median(pairs.u))
        scale = float(np.std(pairs.u.astype(np.float64) - pairs.v)) / math.sqrt(2)
        if scale == 0:
            raise ValueError("u and v are identical: make them from different projections")
        if len(self.first) < SETTLING_BATCHES:
            first = (*self.first, (mean, scale))
            settled = np.median(first, axis=0)
            return Normalisation(mean=float(settled[0]), scale=float(settled[1]), first=first)
        return Normalisation(
            mean=self.mean + SHARE * (mean - self.mean),
            scale=self.scale + SHARE * (min(scale, 2 * self.scale) - self.scale),
            first=self.first,
        )


class Trainer:
    """Train a preset's network on pairs; the same seed and pairs give the same weights, bit for bit (on one machine).

    One thread at a time: what others need of it is `snapshot()`.
    """

    def __init__(self, preset: Preset | str, *, seed: int = 0) -> None:
        # More threads beside a busy reconstruction slow a step down threefold.
        torch.set_num_threads(1)
        self.preset = preset_named(preset) if isinstance(preset, str) else preset
        self._seed = seed
        self.reset()

    def reset(self) -> None:
        """Forget everything and start from the seed again."""
        recipe = self.preset.recipe
        self.step = 0
        self.refused = 0
        self._normalisation = Normalisation()
        self._network = self.preset.build()
        initialise(self._network, self._seed)
        self._average = self.preset.build().requires_grad_(False)
        self._average.load_state_dict(self._network.state_dict())
        self._averaged = 0
        self._optimiser = torch.optim.Adam(
            self._network.parameters(), lr=recipe.learning_rate, betas=recipe.betas, fused=True
        )

    def train_step(self, pairs: Pairs) -> float:
        """Take one step and return the loss in units of the noise variance of one half: 2 is no denoising, 1 is ideal.

        Pairs that cannot be learnt from raise a ValueError, are counted and leave the weights as they were.
        """
        try:
            return self._taken(pairs)
        except ValueError:
            self.refused += 1
            raise

    def _taken(self, pairs: Pairs) -> float:
        require_usable(pairs)
        normalisation = self._normalisation.following(pairs)
        mean, scale = normalisation.mean, normalisation.scale
        u = network_input(pairs.u, self.preset, mean=mean, scale=scale)
        v = torch.from_numpy((quality.middle(pairs.v)[:, None] - np.float32(mean)) / np.float32(scale))
        loss = functional.mse_loss(self._network(u), v)
        value = float(loss.detach())
        if not value < LARGEST_LOSS:
            raise ValueError(
                f"the loss is {value:.3g} and may be {LARGEST_LOSS:.0e} at most: the weights are left as they were; "
                "look for dead flats or non-positive counts"
            )
        self._normalisation = normalisation
        recipe = self.preset.recipe
        for group in self._optimiser.param_groups:
            group["lr"] = recipe.learning_rate * min(1.0, (self.step + 1) / max(recipe.warm_up_steps, 1))
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._require_finite_gradient()
        self._optimiser.step()
        self._follow()
        self.step += 1
        return value

    def accuracy(self, pairs: Pairs) -> float:
        """Return the accuracy on pairs of any size (fresh ones, or held-out ones); NaN before the first step."""
        if self._normalisation.scale == 0:
            return math.nan
        mean, scale = self._normalisation.mean, self._normalisation.scale
        with torch.inference_mode():
            output = self._average(network_input(pairs.u, self.preset, mean=mean, scale=scale))[:, 0].numpy()
        return quality.accuracy(output * np.float32(scale) + np.float32(mean), pairs)

    def snapshot(self) -> Weights:
        """Return the averaged weights as they are now; later steps do not change them."""
        return Weights(
            preset=self.preset.name,
            step=self.step,
            mean=self._normalisation.mean,
            scale=self._normalisation.scale,
            tensors={name: tensor.clone() for name, tensor in self._average.state_dict().items()},
        )

    def load_weights(self, weights: Weights) -> None:
        """Start from these weights, at step 0; the normalisation is theirs until the first step.

        The optimiser begins anew, and the normalisation with what comes.
        """
        if weights.preset != self.preset.name:
            raise ValueError(
                f"the weights are of preset {weights.preset} and this trainer of {self.preset.name}: "
                "set learn.preset to match"
            )
        spoilt = [name for name, tensor in weights.tensors.items() if not bool(torch.isfinite(tensor).all())]
        if spoilt or not (math.isfinite(weights.mean) and 0 < weights.scale < math.inf):
            raise ValueError(f"the weights are not finite ({', '.join(spoilt) or 'normalisation'}): start without them")
        self.reset()
        self._network.load_state_dict(weights.tensors)
        self._average.load_state_dict(weights.tensors)
        self._normalisation = Normalisation(mean=weights.mean, scale=weights.scale)

    def restart_average(self) -> None:
        """Let the averaged weights follow fast again, as after a jump."""
        self._averaged = 0

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on, in types that torch.load(weights_only=True) takes."""
        return {
            "version": CHECKPOINT_VERSION,
            "preset": self.preset.name,
            "step": self.step,
            "averaged": self._averaged,
            "normalisation": asdict(self._normalisation),
            "network": self._network.state_dict(),
            "average": self._average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        if state.get("version") != CHECKPOINT_VERSION:
            raise ValueError(
                f"the checkpoint has version {state.get('version')}: this program reads {CHECKPOINT_VERSION}"
            )
        if state["preset"] != self.preset.name:
            raise ValueError(
                f"the checkpoint is of preset {state['preset']} and this trainer of {self.preset.name}: "
                "set learn.preset to match"
            )
        self.reset()
        self.step = state["step"]
        self._averaged = state["averaged"]
        self._normalisation = Normalisation(**state["normalisation"])
        self._network.load_state_dict(state["network"])
        self._average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])

    def save(self, path: str | Path) -> None:
        """Write a checkpoint."""
        torch.save(self.state_dict(), path)

    def load(self, path: str | Path) -> None:
        """Read a checkpoint. Only tensors and plain values are read from it, never code."""
        self.load_state_dict(torch.load(path, weights_only=True))

    def _require_finite_gradient(self) -> None:
        """Refuse a gradient whose square overflows: Adam would remember it for ever."""
        gradients = [weight.grad for weight in self._network.parameters() if weight.grad is not None]
        if not bool(nn.utils.get_total_norm(gradients).square().isfinite()):
            raise ValueError(
                "the gradient is not finite: the weights are left as they were; "
                "look for dead flats or non-positive counts"
            )

    def _follow(self) -> None:
        """Move the averaged weights towards the trained ones, fast at first."""
        decay = min(self.preset.recipe.average_decay, (1 + self._averaged) / (10 + self._averaged))
        self._averaged += 1
        with torch.no_grad():
            for average, weight in zip(self._average.parameters(), self._network.parameters(), strict=True):
                average.lerp_(weight, 1 - decay)
