"""The second task on the seam of the models: which of two classes a point belongs to."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.special
import torch
from torch.nn import functional

from bluesky_jit.learn.classes import LABEL_SMOOTHING, Classes, smoothed
from bluesky_jit.learn.denoiser import Denoiser
from bluesky_jit.learn.normalisation import Normalisation
from bluesky_jit.learn.presets import Preset, unet_fast
from bluesky_jit.learn.quality.accuracy import Accuracy, middle, ratio_of
from bluesky_jit.learn.trainer import Trainer
from bluesky_jit.learn.weights import Weights
from bluesky_jit.messages import Pairs

SEGMENTATION = Preset(name="segmentation", network=unet_fast)
"""The network: that of the default preset. Its output is the logarithm of the odds of the upper class."""


def two_classes(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy between log odds and labels; the target's sign, from the threshold, is its label."""
    return functional.binary_cross_entropy_with_logits(output, (target > 0).to(output.dtype))


class Segmenter(Trainer):
    """Learn to tell from u on which side of the threshold v lies: labels that need nobody to draw them.

    Where noise made v's label wrong, u cannot know: what is learnt is how probable the upper class is.
    """

    _loss = staticmethod(two_classes)

    def __init__(self, *, seed: int = 0, device: str | None = None) -> None:
        super().__init__(SEGMENTATION, seed=seed, device=device)

    def train_step(self, pairs: Pairs) -> float:
        """Take one step with the middle slices of pairs, and return the cross-entropy: ln 2 is not to know."""
        return super().train_step(_middles(pairs))

    def accuracy(self, pairs: Pairs) -> Accuracy:
        """Return how many of v's labels are missed, over how many are when u is thresholded: 1 is no better.

        NaN before there is a threshold, or where u alone misses none.
        """
        if not self._normalisation.known:
            return Accuracy()
        middles = _middles(pairs)
        labels = self._target(middles) > self._normalisation.mean
        missed = np.count_nonzero((self._applied(middles.u) > 0) != labels, axis=(1, 2))
        by_threshold = np.count_nonzero((middle(middles.u) > self._normalisation.mean) != labels, axis=(1, 2))
        return ratio_of(missed, by_threshold)

    def _units(self, state: Mapping[str, Any] | None = None) -> Classes:
        if state is None:
            return Classes()
        return Classes(**{**state, "noise": Normalisation(**state["noise"])})

    def _target(self, pairs: Pairs) -> np.ndarray:
        return smoothed(middle(pairs.v), LABEL_SMOOTHING)


class SliceSegmenter:
    """Apply the newest weights to slices. `load` may be called by another thread than `apply`."""

    def __init__(self) -> None:
        self.preset = SEGMENTATION
        self._denoiser = Denoiser(SEGMENTATION)
        self._units = (0.0, 1.0)
        self._lock = threading.Lock()

    @property
    def step(self) -> int:
        """Return the training step of the weights in use; 0 when there are none."""
        return self._denoiser.step

    def load(self, weights: Weights) -> None:
        """Use these weights from the next slice on."""
        with self._lock:
            self._denoiser.load(weights)
            self._units = (weights.mean, weights.scale)

    def apply(self, slab: np.ndarray) -> np.ndarray:
        """Return the probability of the upper class, float32 (ny, nx), in the middle slice of a slab in 1/mm."""
        with self._lock:
            mean, scale = self._units
            odds = self._denoiser.apply(middle(slab[None])[0][None, None])
        return scipy.special.expit((odds - np.float32(mean)) / np.float32(scale))


def _middles(pairs: Pairs) -> Pairs:
    return Pairs(u=middle(pairs.u)[:, None, None], v=middle(pairs.v)[:, None, None])
