"""Turn raw counts into attenuation: −log of (counts − dark) / (flat − dark)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MIN_COUNTS = 0.5
"""Counts above the dark that a pixel is raised to, so that a shadow too deep to measure keeps a finite attenuation."""
DEAD_FRACTION = 0.01
"""A pixel whose flat is below this part of the typical flat (or below one count) is dead."""
MAX_DEAD = 0.2
"""Dead pixels, as part of all, above which it is the flats that are wrong: detectors with one pixel in a hundred dead
are sent back, and the image of a fifth of the pixels cannot be made up from the others."""
SATURATION = 65535
"""Counts at which a pixel is full, unless the detector says otherwise: the most that its uint16 can hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Hold what a frame is compared with: darks, flats, and the counts at which a pixel is full.

    dark, gain: float32 (n_v, n_u), where gain is flat − dark, and 1 in dead pixels; dead pixels, as indices into the
    flattened frame (n_dead,), take a weighted mean of the nearest live pixels left and right in their row.
    """

    dark: np.ndarray
    gain: np.ndarray
    dead: np.ndarray
    left: np.ndarray
    right: np.ndarray
    left_weight: np.ndarray
    right_weight: np.ndarray
    saturation: int = SATURATION


def make_reference(dark: np.ndarray, flat: np.ndarray, *, saturation: int = SATURATION) -> Reference:
    """Compare mean darks and mean flats, float32 (n_v, n_u) each; raise ValueError when the flats show no beam."""
    is_dead = find_dead(dark, flat)
    gain = np.where(is_dead, np.float32(1), flat - dark)
    return Reference(dark=dark, gain=gain, saturation=saturation, **_neighbours(is_dead))


def find_dead(dark: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """Return which pixels are dead, bool (n_v, n_u); raise ValueError when so many are that the flats show no beam."""
    gain = flat - dark
    limit = max(1.0, DEAD_FRACTION * float(np.median(gain)))
    is_dead = ~(gain >= limit)
    share = float(is_dead.mean())
    if share > MAX_DEAD:
        raise ValueError(
            f"{share:.0%} of the pixels are dead, and at most {MAX_DEAD:.0%} may be: the flats read {flat.mean():.1f} "
            f"counts on average and the darks {dark.mean():.1f}. Did the shutter open? Take flats again, darks with "
            "the shutter closed. If the beam is smaller than the detector, use only the region that it lights"
        )
    return is_dead


def attenuation(counts: np.ndarray, reference: Reference) -> tuple[np.ndarray, float]:
    """Return the line integrals, float32 (n_v, n_u), and the fraction of pixels too dark or too bright to measure."""
    signal = counts.astype(np.float32) - reference.dark
    clipped = (signal < MIN_COUNTS) | (counts >= reference.saturation)
    clipped.reshape(-1)[reference.dead] = False
    signal = np.maximum(signal, np.float32(MIN_COUNTS))
    signal /= reference.gain
    result = -np.log(signal)
    flat_view = result.reshape(-1)
    flat_view[reference.dead] = (
        reference.left_weight * flat_view[reference.left] + reference.right_weight * flat_view[reference.right]
    )
    return result, float(np.count_nonzero(clipped)) / clipped.size


def _neighbours(is_dead: np.ndarray) -> dict[str, np.ndarray]:
    """Find, for each dead pixel, its nearest live pixels in the row; in a row with none it reads zero."""
    n_u = is_dead.shape[1]
    columns = np.arange(n_u)
    before = np.maximum.accumulate(np.where(is_dead, -1, columns), axis=1)
    after = np.minimum.accumulate(np.where(is_dead, n_u, columns)[:, ::-1], axis=1)[:, ::-1]
    v, u = np.nonzero(is_dead)
    left, right = before[v, u], after[v, u]
    has_left, has_right = left >= 0, right < n_u
    left_weight = np.where(has_left, np.where(has_right, (right - u) / np.maximum(right - left, 1), 1.0), 0.0)
    right_weight = np.where(has_right, 1.0 - left_weight, 0.0)
    return {
        "dead": v * n_u + u,
        "left": v * n_u + np.where(has_left, left, u),
        "right": v * n_u + np.where(has_right, right, u),
        "left_weight": left_weight.astype(np.float32),
        "right_weight": right_weight.astype(np.float32),
    }


class DarkFlat:
    """Average darks and flats as they come, to correct projections with.

    Without flats it is not `ready`, and what happens then is for the caller to decide; without darks the dark is taken
    as zero and `assumes_no_dark` says so. One thread adds and takes the reference; any threads ask for the rest.
    """

    def __init__(self, n_v: int, n_u: int, *, saturation: int = SATURATION) -> None:
        """Begin with none; saturation: counts from which on a pixel is full."""
        self._dark = np.zeros((n_v, n_u), dtype=np.float32)
        self._flat = np.zeros((n_v, n_u), dtype=np.float32)
        self._saturation = saturation
        self._saturated_flats = 0.0
        self._reference: Reference | None = None
        self.darks = 0
        self.flats = 0
        self._borrowed_darks = self._borrowed_flats = False

    @classmethod
    def borrowed(cls, other: DarkFlat) -> DarkFlat:
        """Start with the darks and flats of another run, each of which gives way to the first of this one."""
        lent = cls(*other.shape, saturation=other._saturation)
        lent._dark, lent._flat, lent._saturated_flats = other._dark, other._flat, other._saturated_flats
        lent.darks, lent.flats = other.darks, other.flats
        lent._borrowed_darks, lent._borrowed_flats = other.darks > 0, other.flats > 0
        return lent

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n_v, n_u)."""
        n_v, n_u = self._dark.shape
        return n_v, n_u

    @property
    def flats_are_borrowed(self) -> bool:
        return self._borrowed_flats

    @property
    def ready(self) -> bool:
        return self.flats > 0

    @property
    def assumes_no_dark(self) -> bool:
        return self.darks == 0

    @property
    def dead_pixels(self) -> int:
        """Count the pixels that are made up from their neighbours, since the reference was last taken."""
        reference = self._reference
        return 0 if reference is None else len(reference.dead)

    @property
    def saturated_flats(self) -> float:
        """Return the fraction of the flats' pixels that were full."""
        return self._saturated_flats

    @property
    def reference(self) -> Reference:
        if not self.ready:
            raise RuntimeError("no flats have come: push flats before correcting projections")
        if self._reference is None:
            self._reference = make_reference(self._dark, self._flat, saturation=self._saturation)
        return self._reference

    def add_darks(self, counts: np.ndarray) -> None:
        """Take darks (n, n_v, n_u) into the mean.

        Raises ValueError when they are as bright as the flats. Where the flats had been held against earlier darks,
        these darks are left out; otherwise the flats are forgotten, and it is not ready until others come.
        """
        if not len(counts):
            return
        unfit: ValueError | None = None
        if self.ready:
            try:
                find_dead(_mean(counts), self._flat)
            except ValueError as error:
                if self.darks:
                    raise
                unfit = error
                self.flats, self._borrowed_flats, self._saturated_flats = 0, False, 0.0
        if self._borrowed_darks:
            self.darks, self._borrowed_darks = 0, False
        self._dark = _running_mean(self._dark, self.darks, counts)
        self.darks += len(counts)
        self._reference = None
        if unfit is not None:
            raise unfit

    def add_flats(self, counts: np.ndarray) -> None:
        """Take flats (n, n_v, n_u) into the mean; raise ValueError, and leave them out, when they show no beam."""
        if not len(counts):
            return
        # By themselves: among good flats, those taken with the shutter closed would only lower the mean.
        find_dead(self._dark, _mean(counts))
        if self._borrowed_flats:
            self.flats, self._borrowed_flats = 0, False
        saturated = float(np.count_nonzero(counts >= self._saturation)) / counts[0].size
        self._saturated_flats = (self._saturated_flats * self.flats + saturated) / (self.flats + len(counts))
        self._flat = _running_mean(self._flat, self.flats, counts)
        self.flats += len(counts)
        self._reference = None


def _mean(frames: np.ndarray) -> np.ndarray:
    """Return the mean of frames (n, n_v, n_u), float32 (n_v, n_u)."""
    return frames.mean(axis=0, dtype=np.float32)


def _running_mean(mean: np.ndarray, n: int, frames: np.ndarray) -> np.ndarray:
    """Return the mean of n earlier frames and these; a new array, since the old one may be in use."""
    for frame in frames:
        n += 1
        mean = mean + (frame.astype(np.float32) - mean) / np.float32(n)
    return mean
