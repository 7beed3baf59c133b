"""Segmentation of a slice: two classes, told apart by a threshold."""

from __future__ import annotations

import numpy as np


def class_means(image: np.ndarray) -> tuple[float, float] | None:
    """Return the means of what lies below and above Otsu's threshold, None where all is the same."""
    # Imported here: only who asks for classes pays for it.
    from skimage.filters import threshold_otsu

    known = image[np.isfinite(image)]
    if known.size == 0 or known.min() == known.max():
        return None
    above = known > threshold_otsu(known)
    return float(known[~above].mean(dtype=np.float64)), float(known[above].mean(dtype=np.float64))


def threshold_labels(image: np.ndarray) -> np.ndarray:
    """Return uint8 labels of an image's shape: 1 where it exceeds Otsu's threshold, else 0; all 0 for a flat one."""
    means = class_means(image)
    if means is None:
        return np.zeros(image.shape, dtype=np.uint8)
    # Between well-parted classes any threshold is as good to Otsu, and the first of them cuts into the lower one: take
    # the one half way between the class means, where his best threshold lies.
    return (np.isfinite(image) & (image > sum(means) / 2)).astype(np.uint8)
