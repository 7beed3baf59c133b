"""The seam of the models: what learns from pairs, and what applies what was learnt to slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bluesky_jit.learn.denoiser import MEMORY_GB, Denoiser
from bluesky_jit.learn.presets import Preset, preset_named
from bluesky_jit.learn.quality.accuracy import Accuracy
from bluesky_jit.learn.trainer import Trainer
from bluesky_jit.learn.weights import Weights
from bluesky_jit.messages import Pairs


class Model(Protocol):
    """Learn from pairs, in one thread at a time; what others need of it is `snapshot()`."""

    @property
    def preset(self) -> Preset: ...

    @property
    def step(self) -> int:
        """Return how many steps were taken."""
        ...

    @property
    def refused(self) -> int:
        """Return how many steps were refused, since the last reset, because they would have spoilt the weights."""
        ...

    def train_step(self, pairs: Pairs) -> float:
        """Take one step and return the loss; pairs that cannot be learnt from raise ValueError and change nothing."""
        ...

    def accuracy(self, pairs: Pairs) -> Accuracy:
        """Return the accuracy on pairs of any size, and how well it is known; NaN before there is one."""
        ...

    def snapshot(self) -> Weights:
        """Return what was learnt so far; later steps do not change it."""
        ...

    def load_weights(self, weights: Weights) -> None:
        """Start from these, at step 0: a warm start."""
        ...

    def restart_average(self) -> None:
        """Let what is shown follow what is learnt fast again, as after a jump."""
        ...

    def reset(self) -> None:
        """Forget everything and start from the seed again."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on, in types that torch.load(weights_only=True) takes."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        ...

    def save(self, path: str | Path) -> None:
        """Write a checkpoint."""
        ...

    def load(self, path: str | Path) -> None:
        """Go on from a checkpoint."""
        ...


class Applier(Protocol):
    """Apply the newest weights to whole slices; `load` may be called by another thread than `apply`."""

    @property
    def preset(self) -> Preset: ...

    @property
    def step(self) -> int:
        """Return the training step of the weights in use; 0 when there are none."""
        ...

    def load(self, weights: Weights) -> None:
        """Use these weights from the next slice on."""
        ...

    def apply(self, slab: np.ndarray) -> np.ndarray:
        """Return the middle slice as the model makes it, float32 (ny, nx), of a slab, float32 (nt, nz, ny, nx)."""
        ...


def make_model(preset: Preset | str, *, seed: int = 0) -> Model:
    """Make what learns for a preset."""
    chosen = preset_named(preset) if isinstance(preset, str) else preset
    if chosen.network is not None:
        return Trainer(chosen, seed=seed)
    # Imported here: scikit-image's filters take a while, and the networks need none of them.
    from bluesky_jit.learn.total_variation import TotalVariation

    return TotalVariation(chosen)


def make_denoiser(preset: Preset | str, *, memory_gb: float = MEMORY_GB) -> Applier:
    """Make what applies a preset's weights; memory_gb: of a network, for one slice."""
    chosen = preset_named(preset) if isinstance(preset, str) else preset
    if chosen.network is not None:
        return Denoiser(chosen, memory_gb=memory_gb)
    from bluesky_jit.learn.total_variation import TotalVariationDenoiser

    return TotalVariationDenoiser(chosen)
