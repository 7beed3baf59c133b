"""The threshold between two classes, found from the stream of pairs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.ndimage import gaussian_filter

from bluesky_jit.learn.normalisation import EVERY, SETTLING_BATCHES, SHARE, Normalisation
from bluesky_jit.learn.quality.accuracy import middle
from bluesky_jit.learn.segmentation import class_means
from bluesky_jit.learn.weights import Weights
from bluesky_jit.messages import Pairs

SMOOTHING = 1.0
"""Width (σ), in points, over which slices are smoothed for their threshold: the noise of filtered backprojection
changes from point to point, classes do not."""
LABEL_SMOOTHING = 0.7
"""The same for the labels to learn from. Without any, they are right only as often as noise lets them, and half of the
points are told with probabilities between 0.2 and 0.8; with more, boundaries are rounded off. (Dice on the simulated
tablet, none, 0.7, 1, 1.5: 0.991, 0.989, 0.984, 0.976.)"""


def smoothed(images: np.ndarray, width: float) -> np.ndarray:
    """Return images (n, ny, nx) smoothed by a Gaussian, width (σ) in points."""
    return gaussian_filter(images, (0, width, width), mode="nearest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """Say where the two classes lie, in 1/mm, and how strong the noise of one half is.

    The threshold is Otsu's of the first batches; later ones move the two means.
    """

    lower: float = 0.0
    upper: float = 0.0
    noise: Normalisation = field(default_factory=Normalisation)
    first: tuple[tuple[float, float], ...] = ()
    """The means of each of the first batches that had both."""

    @property
    def mean(self) -> float:
        """Where the network's input is nought: the threshold, half way between the means."""
        return (self.lower + self.upper) / 2

    @property
    def scale(self) -> float:
        return self.noise.scale

    @property
    def known(self) -> bool:
        """Whether there is anything to go by yet."""
        return self.noise.known and self.upper > self.lower

    def starting_from(self, weights: Weights) -> Classes:
        """Return the threshold of these weights, to go by until something was seen."""
        return Classes(
            lower=weights.mean - weights.scale,
            upper=weights.mean + weights.scale,
            noise=self.noise.starting_from(weights),
        )

    def following(self, pairs: Pairs) -> Classes:
        """Return the classes that have seen one more batch."""
        noise = self.noise.following(pairs)
        settling = len(self.first) < SETTLING_BATCHES
        if not settling and self.noise.later % EVERY:
            return replace(self, noise=noise)
        values = smoothed((middle(pairs.u) + middle(pairs.v)) / 2, SMOOTHING)
        if settling:
            means = class_means(values)
            if means is None:
                return replace(self, noise=noise)
            first = (*self.first, means)
            lower, upper = np.median(first, axis=0)
            return Classes(lower=float(lower), upper=float(upper), noise=noise, first=first)
        above = values > self.mean
        return replace(
            self,
            lower=_moved(self.lower, values[~above]),
            upper=_moved(self.upper, values[above]),
            noise=noise,
        )


def _moved(mean: float, values: np.ndarray) -> float:
    return mean + SHARE * (float(values.mean(dtype=np.float64)) - mean) if values.size else mean
