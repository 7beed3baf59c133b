"""Segmentation of a slice: two classes, told apart by a threshold."""

from __future__ import annotations

import numpy as np


def threshold_labels(image: np.ndarray) -> np.ndarray:
    """Return uint8 labels of an image's shape: 1 where it exceeds Otsu's threshold, else 0; all 0 for a flat one."""
    # Imported here: only who asks for the analysis image pays for it.
    from skimage.filters import threshold_otsu

    known = image[np.isfinite(image)]
    if known.size == 0 or known.min() == known.max():
        return np.zeros(image.shape, dtype=np.uint8)
    threshold = threshold_otsu(known)
    # Between well-parted classes any threshold is as good to Otsu, and the first of them cuts into the lower one: take
    # the one half way between the class means, where his best threshold lies.
    threshold = (known[known <= threshold].mean(dtype=np.float64) + known[known > threshold].mean(dtype=np.float64)) / 2
    return (np.isfinite(image) & (image > threshold)).astype(np.uint8)
