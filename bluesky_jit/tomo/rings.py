"""Take out rings: stripes that pixels of slightly wrong gain leave in every projection, estimated as frames come."""

from __future__ import annotations

import numpy as np
from numba import njit

BLOCKS = 9
"""Parts of the remembered projections that are judged by themselves. The median of an odd number is one of them, and
what the sample shows to a pixel in fewer than half of nine parts of a turn is none of the pixel's doing."""
ENOUGH_BLOCKS = 5
"""From which on rings are taken out: the first number of the nine that can outvote the rest."""
SMOOTHING = 2
"""Half the width of the running mean that takes slopes away, in ring widths; less would take rings away with them."""
SAMPLE_ROWS = 64
"""Of which stripes' sizes are judged: some ten thousand pixels give their quantiles to a few hundredths."""
QUANTILE = 0.75
"""Of stripes' sizes, by which they are judged: half of a detector can see air, where there are hardly any."""
USUAL = 3.0
"""Times that size, from which on a stripe is unusual: 3.45 standard deviations, which one in 1800 exceeds where they
are normally distributed, and hardly ever two at mirrored places."""


class RingEstimate:
    """Estimate each pixel's stripe from the line integrals of the last `projections` frames, a turn or more.

    The projections are taken in nine blocks, in the order that they come. In the mean of each, a stripe is what stands
    out from the pixels around it in the row; a pixel's correction is the median of its blocks'. A tube around the axis,
    or a ball on it, stands still like a stripe, but it is seen at both sides of the axis' image: where both columns
    stand out by more than is usual, what they have in common is left in.

    One thread uses it. All projections share the estimate, whichever their split: it is a declared shared term of the
    Noise2Inverse splits.
    """

    def __init__(self, n_v: int, n_u: int, *, width: int, projections: int, axis_u: float | None = None) -> None:
        """Begin with no stripes; width: pixels of the widest ring; axis_u: column of the axis' image, None for none."""
        if not 1 <= width <= n_u // (2 * SMOOTHING + 1):
            raise ValueError(
                f"width is {width} pixels and the detector {n_u} wide: give a width of 1 to "
                f"{n_u // (2 * SMOOTHING + 1)}, or leave rings in"
            )
        if projections < BLOCKS:
            raise ValueError(f"projections is {projections}: rings need a turn of at least {BLOCKS} projections")
        self.width = width
        self.projections = projections
        self.axis_u = axis_u
        self._block_sum = np.zeros((n_v, n_u), dtype=np.float32)
        self._stripes = np.zeros((BLOCKS, n_v, n_u), dtype=np.float32)
        self.forget()

    def forget(self) -> None:
        """Begin again, as other flats or another detector setting ask for; frames seen before may come again."""
        self._block_sum[:] = 0
        self._in_block = 0
        self._blocks = 0
        self._newest = -1
        self._correction: np.ndarray | None = None

    @property
    def correction(self) -> np.ndarray | None:
        """Return what to subtract from line integrals, float32 (n_v, n_u), never changed later; None before it acts."""
        return self._correction

    @property
    def stage(self) -> int:
        """Return 0 before rings are taken out, 1 from half the projections on, 2 once all of them have been seen.

        When it rises, frames that were corrected before deserve to be corrected again.
        """
        return 0 if self._correction is None else 1 if self._blocks < BLOCKS else 2

    def update(self, line_integrals: np.ndarray, acquisition: int) -> None:
        """Take a frame (n_v, n_u) into the estimate; one that came before, or was overtaken, counts no second time."""
        if acquisition <= self._newest:
            return
        self._newest = acquisition
        self._block_sum += line_integrals
        self._in_block += 1
        # The blocks' borders are spread over the projections, so that nine of them hold exactly all.
        k = self._blocks % BLOCKS
        if self._in_block < (k + 1) * self.projections // BLOCKS - k * self.projections // BLOCKS:
            return
        self._block_sum /= np.float32(self._in_block)
        _stripes(self._block_sum, self.width, SMOOTHING * self.width, self._stripes[k])
        self._block_sum[:] = 0
        self._in_block = 0
        self._blocks += 1
        if self._blocks >= ENOUGH_BLOCKS:
            self._correction = self._median_of_blocks()

    def _median_of_blocks(self) -> np.ndarray:
        result = np.empty_like(self._block_sum)
        _median_of_images(self._stripes[: min(self._blocks, BLOCKS)], result)
        if self.axis_u is not None:
            sample = result[:: -(-len(result) // SAMPLE_ROWS)]
            usual = USUAL * float(np.quantile(np.abs(sample), QUANTILE))
            _leave_what_is_round(result, round(2 * self.axis_u), usual)
        return result


@njit(cache=True, nogil=True, error_model="numpy")
def _median_into_first_half(rows: np.ndarray) -> None:
    """Sort the columns of rows (k, n) from below as far as row k // 2, which then holds their medians.

    Whole rows are compared, so that the loop within runs over neighbours in memory and is vectorised.
    """
    k, n = rows.shape
    for settled in range(k // 2 + 1):
        for j in range(k - 1, settled, -1):
            for i in range(n):
                low = min(rows[j - 1, i], rows[j, i])
                rows[j, i] = max(rows[j - 1, i], rows[j, i])
                rows[j - 1, i] = low


@njit(cache=True, nogil=True, error_model="numpy")
def _median_of_images(images: np.ndarray, out: np.ndarray) -> None:
    """Write the median of images (k, n_v, n_u) to out (n_v, n_u); of an even number, the upper of the middle two."""
    k, n_v, n_u = images.shape
    rows = np.empty((k, n_u), np.float32)
    for v in range(n_v):
        for j in range(k):
            rows[j] = images[j, v]
        _median_into_first_half(rows)
        out[v] = rows[k // 2]


@njit(cache=True, nogil=True, error_model="numpy")
def _stripes(mean: np.ndarray, width: int, reach: int, out: np.ndarray) -> None:
    """Write to out how far each pixel of mean (n_v, n_u) stands out from its row.

    First a running mean of 2·reach + 1 pixels is taken off, for a median would let stripes pass on a slope; what a
    median of 2·width + 1 pixels leaves of the rest is wider than a stripe, and stays. Rows go on past their ends with
    their last pixel's value.
    """
    n_v, n_u = mean.shape
    k = 2 * width + 1
    padded = np.empty(n_u + 2 * reach, np.float32)
    detail = np.empty(n_u + 2 * width, np.float32)
    rows = np.empty((k, n_u), np.float32)
    for v in range(n_v):
        padded[:reach] = mean[v, 0]
        padded[reach : reach + n_u] = mean[v]
        padded[reach + n_u :] = mean[v, n_u - 1]
        running = 0.0
        for i in range(2 * reach):
            running += padded[i]
        for u in range(n_u):
            running += padded[u + 2 * reach]
            detail[width + u] = mean[v, u] - running / (2 * reach + 1)
            running -= padded[u]
        detail[:width] = detail[width]
        detail[width + n_u :] = detail[width + n_u - 1]
        for j in range(k):
            rows[j] = detail[j : j + n_u]
        _median_into_first_half(rows)
        for u in range(n_u):
            out[v, u] = detail[width + u] - rows[width, u]


@njit(cache=True, nogil=True, error_model="numpy")
def _leave_what_is_round(correction: np.ndarray, mirror: int, usual: float) -> None:
    """Take off a correction what it shares with its mirror image about column mirror / 2, where both are unusual.

    The mirror image may be a column off, as the axis' image seldom lies in the middle of one, or between two.
    """
    n_v, n_u = correction.shape
    limit = np.float32(usual)
    shared = np.zeros(n_u, np.float32)
    for v in range(n_v):
        row = correction[v]
        for u in range(n_u):
            if abs(row[u]) <= limit:
                continue
            first, last = max(mirror - u - 1, 0), min(mirror - u + 1, n_u - 1)
            for other in range(first, last + 1):
                if row[u] > 0 and row[other] > limit:
                    shared[u] = max(shared[u], min(row[u], row[other]))
                if row[u] < 0 and row[other] < -limit:
                    shared[u] = min(shared[u], max(row[u], row[other]))
        for u in range(n_u):
            row[u] -= shared[u]
            shared[u] = 0
