"""Whether what the denoiser took away looks like noise: what it should not have taken is lost, or was invented.

Noise of a backprojection is neither white nor the same everywhere, so nothing is compared with a model of it: the
difference u − v of two parts of the data, scaled, is a sample of the very noise that the raw slice, their mean, has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.fft import fft2, fftfreq
from scipy.stats import norm

from bluesky_jit.learn.quality.doubt import BLOCK, FALSE_ALARM, VISIBLE, doubt_map, lost_or_invented, mean_over, tiled

DETAIL = 3
"""Points of the mean that is taken from the denoised slice to leave its finest detail."""
BAND_EDGES = (0.03, 0.1, 0.2, 0.3, 0.4, 0.71)
"""Cycles a point between which the spectra are summed: five bands, the coarsest first, to the corner of
the spectrum."""
MOST_BLOCKS = 1024
"""Blocks whose spectra are taken: with these a band is known to about two per cent, and more would only cost time."""
FEWEST_BLOCKS = 12
"""Blocks below which a slice is too small to be judged."""

MATERIAL = 0.1
"""Part of the noise's power that matters: less may be certain, but changes what is seen by a twentieth at most."""
AS_MUCH_AGAIN = 2.0
"""Ratio of powers at which what was lost or invented is as strong as the noise: there the raw slice is
the better one."""
KEPT = (1 - math.sqrt(0.5)) ** 2
"""Variance ratio of a network that lets half the noise's power through: it takes 1 − √½ of its amplitude away."""
WIDESPREAD = 0.25
"""Part of a slice that may hold more than noise explains: edges blur a little in every honest denoiser. On the coarse
simulated jar, whose wall is three points thick, honest networks came as near as 0.22 to 0.25, and one that was trained
only on the inside of the jar had a third and more (docs/explanations/learning.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualFigure:
    """Compare raw − denoised with the noise that u − v tells: a perfect denoiser has ratios of 1 and 0 for the rest.

    variance_ratio: median over blocks; spectrum_ratio: the same for each band of BAND_EDGES, coarsest first;
    correlation: of the residual with the denoised slice's detail, positive when blurred, negative when sharpened or
    invented; offset: how much too bright the denoised slice is, in units of a raw pixel's noise; doubt: float32
    (ny, nx), the strength of the residual's features in units of what noise explains there, NaN where nothing is known;
    limit: the doubt that noise alone exceeds somewhere in fewer than one slice of ten; doubtful: part of the slice
    above it; worst: row and column of the largest doubt; findings: what is wrong, in words, none for an honest slice.
    """

    variance_ratio: float
    spectrum_ratio: tuple[float, ...]
    correlation: float
    offset: float
    doubt: np.ndarray
    limit: float
    doubtful: float
    worst: tuple[int, int]
    findings: tuple[str, ...]
    verdict: str
    judged: bool = True
    """Whether there was enough to judge by."""


def residual_figure(
    raw: np.ndarray, denoised: np.ndarray, u: np.ndarray, v: np.ndarray, *, mask: np.ndarray | None = None
) -> ResidualFigure:
    """Judge a denoised slice by what was taken away; all are (ny, nx) in 1/mm.

    raw: the mean of u and v, each weighted by how many projections it has: they may be halves, or one split and the
    others. mask: where every projection sees the sample; by default everywhere.
    """
    if not raw.shape == denoised.shape == u.shape == v.shape or raw.ndim != 2:
        raise ValueError(
            f"raw is {raw.shape}, denoised {denoised.shape}, u {u.shape} and v {v.shape}: give one shape (ny, nx)"
        )
    inside = np.ones(raw.shape, dtype=bool) if mask is None else mask
    if not np.isfinite(denoised[inside]).all():
        return _unjudged(raw.shape, "the denoised slice holds values that are not finite", wrong=True)
    residual = np.where(inside, raw - denoised, 0).astype(np.float32)
    difference = np.where(inside, u - v, 0).astype(np.float32)
    if not (np.isfinite(residual).all() and np.isfinite(difference).all()):
        return _unjudged(raw.shape, "the raw slice or its halves hold values that are not finite")
    weight = _weight_of_first(np.where(inside, raw - v, 0), difference)
    if not 0 < weight < 1:
        return _unjudged(raw.shape, f"the raw slice is no mean of u and v: the weight of u would be {weight:.2g}")
    # Of variance σ² in the raw slice, noise has σ²/w in u, σ²/(1 − w) in v and thus σ²/(w (1 − w)) in u − v.
    noise = np.float32(math.sqrt(weight * (1 - weight))) * difference
    whole = tiled(inside, BLOCK).all(axis=(1, 3)) & (tiled(noise, BLOCK) != 0).any(axis=(1, 3))
    if np.count_nonzero(whole) < FEWEST_BLOCKS:
        return _unjudged(
            raw.shape,
            f"the slice holds {np.count_nonzero(whole)} blocks of {BLOCK}×{BLOCK} points with noise: "
            f"at least {FEWEST_BLOCKS} are needed to judge by",
        )
    left, known = _each(residual, whole), _each(noise, whole)
    findings: list[str] = []

    variance = _Median.of(np.square(left).sum(axis=(1, 2)) / np.square(known).sum(axis=(1, 2)))
    if variance.surely_below(KEPT):
        findings.append(
            f"noise kept: the residual has only {variance.value:.2f} of the noise's variance, "
            "so the network passes most of the noise on"
        )
    bands = _spectra(left, known)
    findings += _band_findings(bands)
    correlation, error = _with_detail(denoised, inside, left, known, whole)
    sure = float(norm.isf(FALSE_ALARM / 2)) * error
    if correlation - sure > math.sqrt(MATERIAL):
        findings.append(
            f"blurred: the residual follows the denoised slice's own detail (correlation {correlation:.2f}), "
            "so detail was smoothed away with the noise"
        )
    elif correlation + sure < -math.sqrt(MATERIAL):
        findings.append(
            f"sharpened or invented: the denoised slice has detail that the raw one has not (correlation "
            f"{correlation:.2f})"
        )
    level = math.sqrt(float(np.median(np.square(known).mean(axis=(1, 2)))))
    shift = np.median(left.mean(axis=(1, 2)))
    offset = -float(shift) / level
    spread = 1.4826 * float(np.median(np.abs(known.mean(axis=(1, 2))))) / level
    if abs(offset) - norm.isf(FALSE_ALARM / 2) * 1.2533 * spread / math.sqrt(len(left)) > math.sqrt(MATERIAL):
        findings.append(
            f"offset: the denoised slice is {abs(offset):.2f} of a raw pixel's noise too "
            f"{'bright' if offset > 0 else 'dark'} all over"
        )
    # An offset is a finding by itself: left in, it would be found again at every place.
    doubt, limit = doubt_map(np.where(inside, residual - shift, 0), noise, inside)
    place = np.unravel_index(int(np.nanargmax(doubt)), doubt.shape)
    worst = (int(place[0]), int(place[1]))
    doubtful = float(np.mean(doubt[np.isfinite(doubt)] > limit))
    if doubtful > WIDESPREAD:
        findings.append(f"not noise: over {doubtful:.0%} of the slice the residual is stronger than noise explains")
    if doubt[worst] > max(limit, VISIBLE):
        findings.append(
            f"{lost_or_invented(raw, denoised, worst)} near row {worst[0]}, column {worst[1]}: "
            f"the residual is {doubt[worst]:.1f} times what noise explains"
        )
    return ResidualFigure(
        variance_ratio=variance.value,
        spectrum_ratio=tuple(band.value for band in bands),
        correlation=correlation,
        offset=offset,
        doubt=doubt,
        limit=limit,
        doubtful=doubtful,
        worst=worst,
        findings=tuple(findings),
        verdict="; ".join(findings) or "the residual looks like noise: nothing was lost or invented that shows in it",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Median:
    """Hold the median of positive ratios, one a block, with the error of its logarithm: one wild block moves it little.

    Numerator and denominator are drawn alike when only noise is left, so the median is then 1 whatever the noise.
    """

    value: float
    error: float

    @classmethod
    def of(cls, ratios: np.ndarray) -> _Median:
        logs = np.log(np.maximum(ratios, 1e-12))
        middle = float(np.median(logs))
        # 1.4826 takes a median deviation to a standard one, 1.2533 the error of a mean to that of a median.
        error = 1.2533 * 1.4826 * float(np.median(np.abs(logs - middle))) / math.sqrt(len(logs))
        return cls(value=math.exp(middle), error=error)

    def surely_below(self, limit: float) -> bool:
        return math.log(self.value) + float(norm.isf(FALSE_ALARM)) * self.error < math.log(limit)

    def surely_above(self, limit: float, *, tries: int) -> bool:
        return math.log(self.value) - float(norm.isf(FALSE_ALARM / tries)) * self.error > math.log(limit)


def _weight_of_first(raw_less_v: np.ndarray, difference: np.ndarray) -> float:
    """Return w of raw = w·u + (1 − w)·v, from raw − v and u − v; a half where these tell nothing."""
    power = float(np.square(difference).sum(dtype=np.float64))
    return float(np.sum(raw_less_v * difference, dtype=np.float64)) / power if power > 0 else 0.5


def _spectra(left: np.ndarray, known: np.ndarray) -> tuple[_Median, ...]:
    """Return the ratio of powers in each band, over blocks (n, BLOCK, BLOCK) less their means."""
    step = -(-len(left) // MOST_BLOCKS)
    hann = np.hanning(BLOCK + 1)[:BLOCK]
    window = np.outer(hann, hann).astype(np.float32)
    powers = []
    for blocks in (left[::step], known[::step]):
        level = blocks - blocks.mean(axis=(1, 2), keepdims=True)
        powers.append(np.square(np.abs(np.asarray(fft2(level * window)))).reshape(len(blocks), -1))
    frequency = np.hypot(*np.meshgrid(fftfreq(BLOCK), fftfreq(BLOCK))).ravel()
    number = np.digitize(frequency, BAND_EDGES) - 1
    member = (number[:, None] == np.arange(len(BAND_EDGES) - 1)).astype(np.float32)
    return tuple(_Median.of(ratios) for ratios in ((powers[0] @ member) / (powers[1] @ member)).T)


def _band_findings(bands: tuple[_Median, ...]) -> list[str]:
    """Say in which bands more than noise was taken away, in one finding."""
    found = [number for number, band in enumerate(bands) if band.surely_above(AS_MUCH_AGAIN, tries=len(bands))]
    if not found:
        return []
    strongest = max(bands[number].value for number in found)
    shortest, longest = 1 / BAND_EDGES[found[-1] + 1], 1 / BAND_EDGES[found[0]]
    return [
        f"structure lost or invented everywhere: at {shortest:.0f} to {longest:.0f} points the residual has "
        f"{strongest:.1f} times the noise's power"
    ]


def _with_detail(
    denoised: np.ndarray, inside: np.ndarray, left: np.ndarray, known: np.ndarray, whole: np.ndarray
) -> tuple[float, float]:
    """Return the correlation of the residual with the denoised slice's detail, and its standard error under noise."""
    filled = np.where(inside, denoised, 0).astype(np.float32)
    detail = _each(filled - mean_over(filled, DETAIL), whole)
    left = left - left.mean(axis=(1, 2), keepdims=True)
    known = known - known.mean(axis=(1, 2), keepdims=True)
    size = math.sqrt(float(np.square(left).sum(dtype=np.float64)) * float(np.square(detail).sum(dtype=np.float64)))
    if size == 0:
        return 0.0, 0.0
    correlation = float(np.sum(left * detail, dtype=np.float64)) / size
    # Noise that the network has not seen gives sums of this size by chance, block by block.
    return correlation, math.sqrt(float(np.square(np.sum(known * detail, axis=(1, 2))).sum(dtype=np.float64))) / size


def _each(values: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return the chosen blocks (n, BLOCK, BLOCK)."""
    return tiled(values, BLOCK).swapaxes(1, 2)[whole]


def _unjudged(shape: tuple[int, ...], why: str, *, wrong: bool = False) -> ResidualFigure:
    return ResidualFigure(
        variance_ratio=math.nan,
        spectrum_ratio=(math.nan,) * (len(BAND_EDGES) - 1),
        correlation=math.nan,
        offset=math.nan,
        doubt=np.full(shape, np.nan, dtype=np.float32),
        limit=math.nan,
        doubtful=math.nan,
        worst=(0, 0),
        findings=(why,) if wrong else (),
        verdict=why,
        judged=wrong,
    )
