"""Total variation: denoising without a network. What is learnt is its one number, the weight."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.restoration import denoise_tv_chambolle

from bluesky_jit.learn import checkpoint
from bluesky_jit.learn.buffer import require_usable
from bluesky_jit.learn.normalisation import Normalisation
from bluesky_jit.learn.presets import Preset, preset_named
from bluesky_jit.learn.quality.accuracy import Accuracy, accuracy_of_patches, middle
from bluesky_jit.learn.weights import Weights
from bluesky_jit.messages import Pairs

FIRST_WEIGHT = 1.0
"""Weight to start from, in units of the noise: the best one for discs whose contrast is about that of the noise."""
FIRST_RATIO = 2.0
LAST_RATIO = 1.1
"""Ratios between neighbouring candidates: at first, and when the best is known as well as is of use."""
LIMITS = (0.01, 100.0)
"""Weights that leave everything, and nothing but the mean: of pure noise, ever more would be better."""
BATCHES = 5
"""Batches on which candidates are compared before the best of them is chosen."""
PATCHES = 8
"""Patches taken of each batch: some 2 ms each and candidate, and there are three."""
EPSILON = 1e-5
"""Change of the energy at which the iteration stops. scikit-image's own, 2e-4, stops it so early that neighbouring
weights differ by half in squared error."""


def denoise(slab: np.ndarray, *, weight: float) -> np.ndarray:
    """Return the middle slice, float32 (ny, nx), of a slab (nz, ny, nx), less the variation that a weight takes away.

    Variation between slices counts as well: on the simulated tablet, three slices leave a third less excess error than
    one (accuracy 0.525 and 0.538 with the best weights), and take 1.7 times as long.
    """
    volume = slab[0] if len(slab) == 1 else slab
    denoised = np.asarray(denoise_tv_chambolle(volume, weight=weight, eps=EPSILON), dtype=np.float32)
    return denoised if len(slab) == 1 else denoised[len(slab) // 2]


def middle_frame(slabs: np.ndarray) -> np.ndarray:
    """Return the slices (n, nz, ny, nx) of the middle frame of slabs (n, nt, nz, ny, nx)."""
    return slabs[:, slabs.shape[1] // 2]


def noise_variance(images: np.ndarray) -> float:
    """Return the variance of what changes from point to point both ways in images (n, ny, nx): noise, mostly."""
    difference = np.diff(np.diff(images.astype(np.float64), axis=1), axis=2)
    return float(np.mean(np.square(difference))) / 4


class TotalVariation:
    """Find the weight of total variation that denoises u best, as v tells: three candidates, and then closer ones.

    Weights are in units of the noise: the best one moves with it, so the slice of all projections, which has less of
    it, takes a smaller one.
    """

    def __init__(self, preset: Preset | str = "tv") -> None:
        self.preset = preset_named(preset) if isinstance(preset, str) else preset
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.step = 0
        self.refused = 0
        self._normalisation = Normalisation.of(self.preset)
        self._weight = FIRST_WEIGHT
        self._noise = (0.0, 0.0)
        """Sums of the noise variances of u and v."""
        self.restart_average()

    def train_step(self, pairs: Pairs) -> float:
        """Compare the candidates and return the loss of the present weight: 2 is no denoising, 1 is ideal."""
        try:
            require_usable(pairs)
            if np.array_equal(pairs.u, pairs.v):
                raise ValueError("u and v are identical: make them from different projections")
            self._normalisation = self._normalisation.following(pairs)
        except ValueError:
            self.refused += 1
            raise
        few = Pairs(u=pairs.u[:PATCHES], v=pairs.v[:PATCHES])
        found = [self._accuracy(few, weight).value for weight in self._candidates()]
        if np.isfinite(found).all():
            self._sums += found
            self._compared += 1
        noise_u, noise_v = self._noise
        self._noise = (
            noise_u + noise_variance(middle(few.u)),
            noise_v + noise_variance(middle(few.v)),
        )
        if self._compared == BATCHES:
            self._choose()
        self.step += 1
        return 2 * found[1]

    def accuracy(self, pairs: Pairs) -> Accuracy:
        """Return the accuracy on pairs of any size; NaN before there is a normalisation."""
        return self._accuracy(pairs, self._weight) if self._normalisation.known else Accuracy()

    def snapshot(self) -> Weights:
        """Return the weight for slices of all projections, in units of the noise of u."""
        return Weights(
            preset=self.preset.name,
            step=self.step,
            mean=self._normalisation.mean,
            scale=self._normalisation.scale,
            tensors={"weight": torch.tensor(self._weight * self._noise_of_all())},
        )

    def load_weights(self, weights: Weights) -> None:
        """Start from this weight, at step 0."""
        _require_of(weights, self.preset)
        weight = float(weights.tensors["weight"])
        if not (0 < weight < math.inf and 0 < weights.scale < math.inf):
            raise ValueError(f"the weight is {weight:g} and the noise {weights.scale:g}: start without them")
        self.reset()
        self._normalisation = self._normalisation.starting_from(weights)
        self._weight = weight / self._noise_of_all()

    def restart_average(self) -> None:
        """Look for the weight far and wide again."""
        self._ratio = FIRST_RATIO
        self._forget_comparison()

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on, in types that torch.load(weights_only=True) takes."""
        return {
            "version": checkpoint.VERSION,
            "preset": self.preset.name,
            "step": self.step,
            "refused": self.refused,
            "normalisation": asdict(self._normalisation),
            "weight": self._weight,
            "ratio": self._ratio,
            "sums": self._sums.tolist(),
            "compared": self._compared,
            "noise": self._noise,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        checkpoint.require_fit(state, self.preset)
        self.step, self.refused = state["step"], state["refused"]
        self._normalisation = Normalisation(**state["normalisation"])
        self._weight, self._ratio, self._noise = state["weight"], state["ratio"], state["noise"]
        self._sums, self._compared = np.array(state["sums"]), state["compared"]

    def save(self, path: str | Path) -> None:
        """Write a checkpoint, whole or not at all."""
        checkpoint.write(self.state_dict(), path)

    def load(self, path: str | Path) -> None:
        """Go on from a checkpoint."""
        self.load_state_dict(checkpoint.read(path))

    def _candidates(self) -> tuple[float, float, float]:
        return self._weight / self._ratio, self._weight, self._weight * self._ratio

    def _choose(self) -> None:
        """Take the best candidate; when that is the one in the middle, look closer."""
        best = int(np.argmin(self._sums))
        self._weight = float(np.clip(self._candidates()[best], *LIMITS))
        if best == 1:
            self._ratio = max(LAST_RATIO, math.sqrt(self._ratio))
        self._forget_comparison()

    def _forget_comparison(self) -> None:
        self._sums, self._compared = np.zeros(3), 0

    def _noise_of_all(self) -> float:
        """Return the noise of the slice of all projections, which averages u and v, in units of u's: √½ for halves."""
        noise_u, noise_v = self._noise
        return math.sqrt(noise_v / (noise_u + noise_v)) if noise_u > 0 and noise_v > 0 else math.sqrt(0.5)

    def _accuracy(self, pairs: Pairs, weight: float) -> Accuracy:
        mean, scale = self._normalisation.mean, self._normalisation.scale
        slabs = middle_frame(pairs.u)
        return accuracy_of_patches(np.stack([_applied(slab, mean, scale, weight) for slab in slabs]), pairs)


class TotalVariationDenoiser:
    """Apply the newest weight to slices of all projections. `load` may be called by another thread than `apply`."""

    def __init__(self, preset: Preset | str = "tv") -> None:
        self.preset = preset_named(preset) if isinstance(preset, str) else preset
        self._weights: Weights | None = None

    @property
    def step(self) -> int:
        """Return the training step of the weight in use; 0 when there is none."""
        weights = self._weights
        return 0 if weights is None else weights.step

    def load(self, weights: Weights) -> None:
        """Use this weight from the next slice on."""
        _require_of(weights, self.preset)
        self._weights = weights

    def apply(self, slab: np.ndarray) -> np.ndarray:
        """Return the denoised middle slice, float32 (ny, nx), of a slab, float32 (nt, nz, ny, nx), both in 1/mm."""
        weights = self._weights
        if weights is None:
            raise RuntimeError("the denoiser has no weights yet: load a snapshot of a model")
        return _applied(middle_frame(slab[None])[0], weights.mean, weights.scale, float(weights.tensors["weight"]))


def _applied(slab: np.ndarray, mean: float, scale: float, weight: float) -> np.ndarray:
    units = (slab - np.float32(mean)) / np.float32(scale)
    return denoise(units, weight=weight) * np.float32(scale) + np.float32(mean)


def _require_of(weights: Weights, preset: Preset) -> None:
    if weights.preset != preset.name:
        raise ValueError(f"the weights are of preset {weights.preset} and this model of {preset.name}")
