"""How well the denoiser does, whether its slices may be shown, and whether the sample has changed abruptly."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from bluesky_jit.messages import Pairs

BEATS_RAW = 0.75
"""Accuracy below which the denoised slice is better than the raw one on show.

With noise variance σ² in each half, α = (error + σ²) / 2σ². The raw slice averages both halves, so its own error is
σ²/2, which is α = 0.75. (α < 1 merely beats one half.)
"""
SUSPICIOUS = 0.45
"""Accuracy that no denoiser of independent noise reaches (0.5 is ideal)."""


def middle(slabs: np.ndarray) -> np.ndarray:
    """Return the slice (n, ny, nx) of each slab (n, nt, nz, ny, nx) that the network predicts."""
    return slabs[:, slabs.shape[1] // 2, slabs.shape[2] // 2]


def accuracy(denoised: np.ndarray, pairs: Pairs) -> float:
    """Return the paper's empirical accuracy (equation 3): mean over pairs of |A(u) − v|² / |u − v|².

    denoised: (n, ny, nx), A(u). 1 is no denoising, about 0.5 is ideal; NaN when u and v are the same everywhere.
    """
    u, v = middle(pairs.u), middle(pairs.v)
    error = np.square(denoised - v).sum(axis=(1, 2), dtype=np.float64)
    noise = np.square(u - v).sum(axis=(1, 2), dtype=np.float64)
    told = noise > 0
    return float(np.mean(error[told] / noise[told])) if told.any() else math.nan


class Readiness:
    """Decide whether denoised slices may be shown: the held-out accuracy must be below 0.75.

    It takes `evaluations` running below the limit less the margin to become ready, and one at or above the limit to
    stop.
    """

    def __init__(self, *, limit: float = BEATS_RAW, margin: float = 0.03, evaluations: int = 3) -> None:
        self._limit = limit
        self._margin = margin
        self._evaluations = evaluations
        self.reset()

    def reset(self, reason: str = "waiting for a held-out accuracy") -> None:
        """Start again, as after a jump or for a new run."""
        self.ready = False
        self.reason = reason
        self.held_out = math.nan
        self._passed = 0

    def update(self, held_out: float) -> bool:
        """Take the accuracy of held-out pairs and return whether denoised slices may be shown."""
        self.held_out = held_out
        enter = self._limit - self._margin
        if not math.isfinite(held_out):
            self.ready, self._passed = False, 0
            self.reason = "the held-out accuracy is not a number: are there projections in both splits?"
        elif held_out >= self._limit:
            self.ready, self._passed = False, 0
            self.reason = f"held-out accuracy {held_out:.3f} is not below {self._limit:.2f}: the raw slice is better"
        elif held_out >= enter and not self.ready:
            self._passed = 0
            self.reason = f"held-out accuracy {held_out:.3f} must fall below {enter:.2f}"
        else:
            self._passed += 1
            self.ready = self.ready or self._passed >= self._evaluations
            self.reason = self._passing_reason(held_out)
        return self.ready

    def _passing_reason(self, held_out: float) -> str:
        if not self.ready:
            return f"held-out accuracy {held_out:.3f}: {self._passed} of {self._evaluations} evaluations passed"
        if held_out < SUSPICIOUS:
            return (
                f"held-out accuracy {held_out:.3f} is below ideal, so do not trust it: "
                "the halves differ by more than noise (motion, few angles)"
            )
        return f"held-out accuracy {held_out:.3f} is below {self._limit:.2f}: better than the raw slice"


class JumpDetector:
    """Notice an abrupt change of the data: accuracy on incoming pairs, before training on them, is off twice running.

    A deviation counts when it is above max(6 σ, 0.02), σ over the last `memory` ordinary values. Only worsening counts:
    while the network learns, accuracy improves fast and that is no jump.
    """

    def __init__(self, *, sigmas: float = 6.0, smallest: float = 0.02, memory: int = 50, at_least: int = 10) -> None:
        self._sigmas = sigmas
        self._smallest = smallest
        self._at_least = at_least
        self._ordinary: deque[float] = deque(maxlen=memory)
        self._deviations = 0

    def reset(self) -> None:
        """Forget what was ordinary."""
        self._ordinary.clear()
        self._deviations = 0

    def update(self, incoming: float) -> bool:
        """Take the accuracy of an incoming batch and return whether the data has jumped (and start again if so)."""
        if not math.isfinite(incoming):
            return False
        known = np.array(self._ordinary)
        if len(known) >= self._at_least and incoming - known.mean() > max(self._sigmas * known.std(), self._smallest):
            self._deviations += 1
        else:
            self._deviations = 0
            self._ordinary.append(incoming)
        if self._deviations < 2:
            return False
        self.reset()
        return True


def data_range(truth: np.ndarray) -> float:
    """Return the range of a noise-free image, in 1/mm: what PSNR and SSIM are relative to."""
    extent = float(truth.max() - truth.min())
    if extent <= 0:
        raise ValueError(
            "the truth is the same everywhere, so PSNR and SSIM mean nothing: compare a slice that has contents"
        )
    return extent


def psnr(image: np.ndarray, truth: np.ndarray, *, mask: np.ndarray | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB, the peak being the truth's range, where mask (ny, nx) is true."""
    inside = np.ones(truth.shape, dtype=bool) if mask is None else mask
    error = float(np.mean((image[inside].astype(np.float64) - truth[inside]) ** 2))
    return 10 * math.log10(data_range(truth) ** 2 / error) if error > 0 else math.inf


def ssim(image: np.ndarray, truth: np.ndarray, *, mask: np.ndarray | None = None) -> float:
    """Return the mean structural similarity, relative to the truth's range, where mask (ny, nx) is true."""
    # Imported here: the session measures accuracy all the time and this never.
    from skimage.metrics import structural_similarity

    reference = np.asarray(truth, dtype=np.float64)
    extent = data_range(reference)
    image = np.asarray(image, dtype=np.float64)
    local = np.asarray(structural_similarity(reference, image, data_range=extent, full=True)[1])  # type: ignore[index]
    return float(np.mean(local if mask is None else local[mask]))
