"""Take out rings: stripes that pixels of slightly wrong gain leave in every projection, estimated as frames come."""

from __future__ import annotations

import numpy as np
from numba import njit

BLOCKS = 9
"""Sectors of angles that are judged by themselves. The median of an odd number is one of them, and what the sample
shows to a pixel in fewer than half of nine sectors is none of the pixel's doing. Sectors, and not frames that came one
after the other: where angles jump (golden, interlaced) those show the sample from all sides, and in their means
whatever stands nearly still looks like a stripe."""
ENOUGH_BLOCKS = 5
"""From which on rings are taken out: the first number of the nine that can outvote the rest."""
WORTH_MOVING_PX = 0.5
"""Move of the axis from which on what is round is looked for again: mirror images may be a column apart, which is half
a pixel of the axis, and an axis that is tracked moves by less again and again."""
SMOOTHING = 2
"""Half the width of the running mean that takes slopes away, in ring widths; less would take rings away with them."""
SAMPLE_ROWS = 64
"""Of which stripes' sizes are judged: some ten thousand pixels give their quantiles to a few hundredths."""
QUANTILE = 0.75
"""Of stripes' sizes, by which they are judged: half of a detector can see air, where there are hardly any."""
USUAL = 3.0
"""Times that size, from which on a stripe is unusual: 3.45 standard deviations, which one in 1800 exceeds where they
are normally distributed, and hardly ever two at mirrored places."""


def widest_ring(n_u: int) -> int:
    """Return the width in pixels of the widest ring that can be told from the sample on a detector of n_u columns."""
    return n_u // (2 * SMOOTHING + 1)


class RingEstimate:
    """Estimate each pixel's stripe from the line integrals of `projections` frames, a turn or more, again and again.

    The frames are averaged in nine sectors of their angles. In the mean of each, a stripe is what stands out from the
    pixels around it in the row; a pixel's correction is the median of its sectors'. A tube around the axis, or a ball
    on it, stands still like a stripe, but it is seen at both sides of the axis' image: where both columns stand out by
    more than is usual, what they have in common is left in.

    One thread uses it. All projections share the estimate, whichever their split: it is a declared shared term of the
    Noise2Inverse splits.
    """

    def __init__(
        self,
        n_v: int,
        n_u: int,
        *,
        width: int,
        projections: int,
        period_rad: float = 2 * np.pi,
        axis_u: float | None = None,
    ) -> None:
        """Begin with no stripes.

        width: pixels of the widest ring; period_rad: the arc that shows everything once, which the sectors share;
        axis_u: column of the axis' image, None for none.
        """
        if not 1 <= width <= widest_ring(n_u):
            raise ValueError(
                f"width is {width} pixels and the detector {n_u} wide: give a width of 1 to {widest_ring(n_u)}, or "
                "leave rings in"
            )
        if projections < BLOCKS:
            raise ValueError(f"projections is {projections}: rings need a turn of at least {BLOCKS} projections")
        self.width = width
        self.projections = projections
        self.period_rad = period_rad
        self._axis_u = axis_u
        self._sums = np.zeros((BLOCKS, n_v, n_u), dtype=np.float32)
        self._median = np.zeros((n_v, n_u), dtype=np.float32)
        self.forget()

    def forget(self) -> None:
        """Begin again, as other flats or another detector setting ask for; frames seen before may come again."""
        self._begin_sums()
        self._stage = 0
        self._newest = -1
        self._corrected_for: float | None = None
        self._correction: np.ndarray | None = None

    def _begin_sums(self) -> None:
        self._sums[:] = 0
        self._summed = np.zeros(BLOCKS, dtype=np.int64)

    @property
    def correction(self) -> np.ndarray | None:
        """Return what to subtract from line integrals, float32 (n_v, n_u), never changed later; None before it acts."""
        return self._correction

    @property
    def stage(self) -> int:
        """Return 0 before rings are taken out, 1 from half the projections on, 2 once all of them have been seen.

        When it rises, frames that were corrected before deserve to be corrected again.
        """
        return self._stage

    @property
    def axis_u(self) -> float | None:
        """Return the column of the axis' image; one that is set, and further off, makes another correction at once."""
        return self._axis_u

    @axis_u.setter
    def axis_u(self, column: float | None) -> None:
        self._axis_u = column
        if self._correction is None:
            return
        before = self._corrected_for
        if column is None or before is None:
            if column is not before:
                self._correct()
        elif abs(column - before) > WORTH_MOVING_PX:
            self._correct()

    def update(self, line_integrals: np.ndarray, acquisition: int, angle_rad: float) -> None:
        """Take a frame (n_v, n_u) into the estimate; one that came before, or was overtaken, counts no second time."""
        if acquisition <= self._newest:
            return
        self._newest = acquisition
        # Of an angle just below 0 rounding makes a whole period.
        sector = min(int(angle_rad % self.period_rad / self.period_rad * BLOCKS), BLOCKS - 1)
        self._sums[sector] += line_integrals
        self._summed[sector] += 1
        total = int(self._summed.sum())
        on_the_way = self._stage == 0 and total == self.projections * ENOUGH_BLOCKS // BLOCKS
        if not (on_the_way or total == self.projections):
            return
        # A sector that has just begun is left out: a few frames show more of the sample than of the pixels.
        sectors = np.flatnonzero(self._summed * (2 * BLOCKS) >= self.projections)
        if on_the_way and len(sectors) < ENOUGH_BLOCKS:
            return
        _median_of_stripes(self._sums, self._summed, sectors, self.width, SMOOTHING * self.width, self._median)
        self._correct()
        self._stage = 1
        if total == self.projections:
            self._stage = 2
            self._begin_sums()

    def _correct(self) -> None:
        """Make the correction of the sectors' median, for the axis as it is."""
        result = self._median.copy()
        if self._axis_u is not None:
            sample = result[:: -(-len(result) // SAMPLE_ROWS)]
            usual = USUAL * float(np.quantile(np.abs(sample), QUANTILE))
            _leave_what_is_round(result, round(2 * self._axis_u), usual)
        self._corrected_for = self._axis_u
        self._correction = result


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
def _median_of_stripes(
    sums: np.ndarray, summed: np.ndarray, sectors: np.ndarray, width: int, reach: int, out: np.ndarray
) -> None:
    """Write to out (n_v, n_u) how far each pixel stands out from its row, in the median of some sectors.

    sums (k, n_v, n_u) of summed (k,) frames. Of an even number of sectors the upper of the middle two is taken. Stripes
    are found in two steps: a running mean of 2·reach + 1 pixels is taken off, for a median would let stripes pass on a
    slope; what a median of 2·width + 1 pixels leaves of the rest is wider than a stripe, and stays. Rows go on past
    their ends with their last pixel's value.
    """
    _, n_v, n_u = sums.shape
    mean = np.empty(n_u, np.float32)
    padded = np.empty(n_u + 2 * reach, np.float32)
    detail = np.empty(n_u + 2 * width, np.float32)
    window = np.empty((2 * width + 1, n_u), np.float32)
    stripes = np.empty((len(sectors), n_u), np.float32)
    for v in range(n_v):
        for j in range(len(sectors)):
            n = np.float32(summed[sectors[j]])
            for u in range(n_u):
                mean[u] = sums[sectors[j], v, u] / n
            _stripes_of_row(mean, width, reach, padded, detail, window, stripes[j])
        _median_into_first_half(stripes)
        out[v] = stripes[len(sectors) // 2]


@njit(cache=True, nogil=True, error_model="numpy")
def _stripes_of_row(
    mean: np.ndarray,
    width: int,
    reach: int,
    padded: np.ndarray,
    detail: np.ndarray,
    window: np.ndarray,
    out: np.ndarray,
) -> None:
    n_u = len(mean)
    padded[:reach] = mean[0]
    padded[reach : reach + n_u] = mean
    padded[reach + n_u :] = mean[n_u - 1]
    running = 0.0
    for i in range(2 * reach):
        running += padded[i]
    for u in range(n_u):
        running += padded[u + 2 * reach]
        detail[width + u] = mean[u] - running / (2 * reach + 1)
        running -= padded[u]
    detail[:width] = detail[width]
    detail[width + n_u :] = detail[width + n_u - 1]
    for j in range(len(window)):
        window[j] = detail[j : j + n_u]
    _median_into_first_half(window)
    for u in range(n_u):
        out[u] = detail[width + u] - window[width, u]


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
