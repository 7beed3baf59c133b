"""Training, a step at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from bluesky_jit.learn import checkpoint
from bluesky_jit.learn.buffer import require_usable
from bluesky_jit.learn.cuda_step import CudaStep
from bluesky_jit.learn.device import training_device
from bluesky_jit.learn.network_input import network_input
from bluesky_jit.learn.normalisation import Normalisation, Units
from bluesky_jit.learn.presets import Preset, preset_named
from bluesky_jit.learn.quality.accuracy import Accuracy, accuracy_of_patches, middle
from bluesky_jit.learn.step import LARGEST_LOSS, Step
from bluesky_jit.learn.weights import Weights, initialise
from bluesky_jit.messages import Pairs


class Trainer:
    """Train a preset's network on pairs; the same seed and pairs give the same weights, bit for bit (on one processor).

    One thread at a time: what others need of it is `snapshot()`.
    """

    _loss = staticmethod(functional.mse_loss)
    """What a step makes smaller, given the network's output and the target in its units."""

    def __init__(self, preset: Preset | str, *, seed: int = 0, device: str | None = None) -> None:
        """Start from a seed. device: "cpu" or "cuda", by default a GPU that trains as the CPU does."""
        # More threads beside a busy reconstruction slow a step down threefold.
        torch.set_num_threads(1)
        self.preset = preset_named(preset) if isinstance(preset, str) else preset
        self._seed = seed
        self._device = torch.device(device or training_device(first_losses))
        self.reset()

    def reset(self) -> None:
        """Forget everything and start from the seed again."""
        self.step = 0
        self.refused = 0
        """Steps refused because their pairs cannot be learnt from, or would have spoilt the weights."""
        self._normalisation = self._units()
        self._network = self.preset.build()
        initialise(self._network, self._seed)
        self._network.to(self._device)
        self._average = self.preset.build().requires_grad_(False).to(self._device)
        self._average.load_state_dict(self._network.state_dict())
        self._averaged = 0
        make_step = CudaStep if self._device.type == "cuda" else Step
        self._step = make_step(self._network, self._average, self.preset.recipe, self._loss)

    def train_step(self, pairs: Pairs) -> float:
        """Take one step and return the loss in units of the noise variance of one half: 2 is no denoising, 1 is ideal.

        (Where the preset does not normalise, in 1/mm².) Pairs that cannot be learnt from raise ValueError: such a step
        is counted as refused and leaves everything else as it was.
        """
        try:
            loss = self._taken(pairs)
        except ValueError:
            self.refused += 1
            raise
        self.step += 1
        self._averaged += 1
        return loss

    def accuracy(self, pairs: Pairs) -> Accuracy:
        """Return the accuracy on pairs of any size, fresh or held-out ones; NaN before there is a normalisation."""
        if not self._normalisation.known:
            return Accuracy()
        mean, scale = self._normalisation.mean, self._normalisation.scale
        return accuracy_of_patches(self._applied(pairs.u) * np.float32(scale) + np.float32(mean), pairs)

    def snapshot(self) -> Weights:
        """Return the averaged weights as they are now; later steps do not change them."""
        return Weights(
            preset=self.preset.name,
            step=self.step,
            mean=self._normalisation.mean,
            scale=self._normalisation.scale,
            tensors={name: tensor.to("cpu", copy=True) for name, tensor in self._average.state_dict().items()},
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
        self._normalisation = self._normalisation.starting_from(weights)

    def restart_average(self) -> None:
        """Let the averaged weights follow fast again, as after a jump."""
        self._averaged = 0

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on, in types that torch.load(weights_only=True) takes."""
        return {
            "version": checkpoint.VERSION,
            "preset": self.preset.name,
            "step": self.step,
            "refused": self.refused,
            "averaged": self._averaged,
            "normalisation": asdict(self._normalisation),
            "network": self._network.state_dict(),
            "average": self._average.state_dict(),
            "optimiser": self._step.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        checkpoint.require_fit(state, self.preset)
        self.reset()
        self.step, self.refused, self._averaged = state["step"], state["refused"], state["averaged"]
        self._normalisation = self._units(state["normalisation"])
        self._network.load_state_dict(state["network"])
        self._average.load_state_dict(state["average"])
        self._step.load_state_dict(state["optimiser"])

    def save(self, path: str | Path) -> None:
        """Write a checkpoint, whole or not at all."""
        checkpoint.write(self.state_dict(), path)

    def load(self, path: str | Path) -> None:
        """Go on from a checkpoint."""
        self.load_state_dict(checkpoint.read(path))

    def _units(self, state: Mapping[str, Any] | None = None) -> Units:
        """Return the units to begin with, of a checkpoint or before anything was seen."""
        return Normalisation.of(self.preset) if state is None else Normalisation(**state)

    def _target(self, pairs: Pairs) -> np.ndarray:
        """Return what is to be predicted, float32 (n, ny, nx) in 1/mm."""
        return middle(pairs.v)

    def _applied(self, slabs: np.ndarray) -> np.ndarray:
        """Return what the averaged network makes of slabs (n, nt, nz, ny, nx) in 1/mm, in its own units (n, ny, nx)."""
        mean, scale = self._normalisation.mean, self._normalisation.scale
        with torch.inference_mode():
            x = network_input(slabs, self.preset, mean=mean, scale=scale).to(self._device)
            return self._average(x)[:, 0].cpu().numpy()

    def _taken(self, pairs: Pairs) -> float:
        require_usable(pairs)
        if np.array_equal(pairs.u, pairs.v):
            raise ValueError("u and v are identical: make them from different projections")
        recipe = self.preset.recipe
        normalisation = self._normalisation.following(pairs)
        result = self._step.take(
            # In 1/mm: the step itself normalises.
            network_input(pairs.u, self.preset, mean=0.0, scale=1.0),
            torch.from_numpy(self._target(pairs)[:, None]),
            mean=normalisation.mean,
            scale=normalisation.scale,
            learning_rate=recipe.learning_rate * min(1.0, (self.step + 1) / max(1, recipe.warm_up_steps)),
            share=1 - min(recipe.average_decay, (1 + self._averaged) / (10 + self._averaged)),
        )
        if result.refused:
            raise ValueError(
                f"the loss is {result.loss:.3g} and may be {LARGEST_LOSS:.0e} at most, its gradient {result.norm:.3g}: "
                "the weights are left as they were; look for dead flats or non-positive counts"
            )
        self._normalisation = normalisation
        return result.loss


def first_losses(device: str, steps: int) -> list[float]:
    """Return the losses of the first steps of a small training on a device: what two devices are compared by."""
    trainer, rng = Trainer("unet-fast", device=device), np.random.default_rng(0)
    truth = rng.normal(size=(8, 1, 1, 20, 20)).cumsum(axis=-1)
    pairs = [Pairs(u=u, v=v) for u, v in (truth + rng.normal(size=(steps, 2, *truth.shape))).astype(np.float32)]
    return [trainer.train_step(each) for each in pairs]
