"""Keep the darks and flats of a run, and say what a frame taken at some time is to be compared with."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from bluesky_jit.tomo.corrections.transmission import SATURATION, Reference, find_dead, gain_of, neighbours

LEAST_BEAM = 0.1
"""Part of the first flats' beam below which later flats show a shutter or a lost beam, and no drift."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatSet:
    """Hold the mean, float32 (n_v, n_u), of n flats taken together.

    after: how many projections had been taken before them; time_s: the mean of their time stamps, NaN when unknown.
    """

    mean: np.ndarray
    n: int
    after: int
    time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """Hold each set's gain, how it changes to the next, and the reference of the first: all but the gain is shared."""

    gains: tuple[np.ndarray, ...]
    changes: tuple[np.ndarray, ...]
    first: Reference


class DarkFlat:
    """Average darks and flats as they come, to correct projections with.

    All darks make one mean. Flats make one mean a set: those with no projection between them. A projection between two
    sets is compared with flats interpolated linearly in time; before the first set and after the last the nearest
    holds.

    Without flats it is not `ready`, and what happens then is for the caller to decide; without darks the dark is taken
    as zero and `assumes_no_dark` says so. One thread adds and takes references; any threads ask for the rest.
    """

    def __init__(self, n_v: int, n_u: int, *, saturation: int = SATURATION) -> None:
        """Begin with none; saturation: counts from which on a pixel is full."""
        self._dark = np.zeros((n_v, n_u), dtype=np.float32)
        self._sets: tuple[FlatSet, ...] = ()
        self._saturation = saturation
        self._saturated_flats = 0.0
        self._compared: _Compared | None = None
        self._latest: tuple[tuple[int, float], Reference] | None = None
        self.darks = 0
        self.revision = 0
        """Grows whenever references change."""
        self._borrowed_darks = self._borrowed_flats = False
        self._estimated = self._unasked = False
        """What stands in for flats is an estimate; or it is of a run that nobody has named."""

    @staticmethod
    def borrowed(other: DarkFlat) -> DarkFlat:
        """Start with the darks and the last flats of another run, each of which gives way to the first of this one."""
        lent = DarkFlat(*other.shape, saturation=other._saturation)
        lent.borrow(other)
        return lent

    def borrow(self, other: DarkFlat, *, unasked: bool = False) -> None:
        """Take another run's darks and its last flats, each where there are none of this run's own.

        unasked: nobody has named that run; its darks then go with its flats. Raises ValueError, and takes nothing, when
        they do not fit what this run has.
        """
        if other.shape != self.shape:
            raise ValueError(
                f"the darks and flats are {other.shape} pixels and the detector {self.shape} (rows, columns): take "
                "them again with the present region of interest"
            )
        own_darks = self.darks > 0 and not self._borrowed_darks
        own_flats = self.ready and not self._borrowed_flats
        dark = self._dark if own_darks else other._dark
        sets = self._sets if own_flats else tuple(replace(last, after=0) for last in other._sets[-1:])
        for flats in sets:
            find_dead(dark, flats.mean)
        if not own_darks:
            self._dark, self.darks, self._borrowed_darks = dark, other.darks, other.darks > 0
        if not own_flats:
            self._sets, self._saturated_flats = sets, other._saturated_flats
            self._borrowed_flats, self._estimated, self._unasked = bool(sets), False, unasked
        self._forget()

    def copy(self) -> DarkFlat:
        """Return the same darks and flats, for another thread to take references from; each goes on by itself."""
        # All that it holds is replaced when it changes, never changed in place. The comparison may be of flats before.
        result = copy.copy(self)
        result._compared = result._latest = None
        return result

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n_v, n_u)."""
        n_v, n_u = self._dark.shape
        return n_v, n_u

    @property
    def flats(self) -> int:
        """Count the flats."""
        return sum(flats.n for flats in self._sets)

    @property
    def flats_are_borrowed(self) -> bool:
        return self._borrowed_flats

    @property
    def flats_are_estimated(self) -> bool:
        return self._borrowed_flats and self._estimated

    @property
    def ready(self) -> bool:
        return bool(self._sets)

    @property
    def assumes_no_dark(self) -> bool:
        return self.darks == 0

    @property
    def dead_pixels(self) -> int:
        """Count the pixels that are made up from their neighbours, since a reference was last taken."""
        compared = self._compared
        return 0 if compared is None else len(compared.first.dead)

    @property
    def saturated_flats(self) -> float:
        """Return the fraction of the flats' pixels that were full."""
        return self._saturated_flats

    @property
    def flat_drift(self) -> float:
        """Return by what part the beam changed between the first flats and those that differ most from them."""
        if len(self._sets) < 2:
            return 0.0
        # The dark is the same in all.
        beams = [float(flats.mean.mean() - self._dark.mean()) for flats in self._sets]
        return max((beam / beams[0] - 1 for beam in beams), key=abs)

    def reference_at(self, *, time_s: float = np.nan, acquisition: int = 0) -> Reference:
        """Return what to compare a projection with; the same object as long as that is the same.

        Between two sets of flats the time stamps say how near each is; where they are missing, or contradict the order
        in which frames were taken, the projection's number does.
        """
        if not self._sets:
            raise RuntimeError("no flats have come: push flats before correcting projections")
        if self._compared is None:
            self._compared = self._compare()
        first, part = self._place(time_s, acquisition)
        if self._latest is None or self._latest[0] != (first, part):
            gain = self._compared.gains[first]
            if part:
                gain = gain + np.float32(part) * self._compared.changes[first]
            self._latest = ((first, part), replace(self._compared.first, gain=gain))
        return self._latest[1]

    def stand_in(self, flat: np.ndarray) -> None:
        """Take an estimate (n_v, n_u) in the place of flats, until the first one comes.

        Raises ValueError when it shows no beam.
        """
        find_dead(self._dark, flat)
        self._sets = (FlatSet(mean=flat.astype(np.float32), n=1, after=0, time_s=np.nan),)
        self._borrowed_flats, self._estimated, self._unasked = True, True, False
        self._forget()

    def add_darks(self, counts: np.ndarray) -> None:
        """Take darks (n, n_v, n_u) into the mean.

        Raises ValueError when they are as bright as the flats. Where the flats had been held against earlier darks,
        these darks are left out; otherwise the flats are forgotten, and it is not ready until others come. Of flats
        that are not this run's own nothing is raised: these give way.
        """
        if not len(counts):
            return
        unfit: ValueError | None = None
        try:
            for flats in self._sets:
                find_dead(_mean(counts), flats.mean)
        except ValueError as error:
            if not self._borrowed_flats:
                if self.darks and not self._borrowed_darks:
                    raise
                unfit = error
            self._sets, self._borrowed_flats, self._saturated_flats = (), False, 0.0
        if self._borrowed_darks:
            self.darks, self._borrowed_darks = 0, False
        self._dark = _running_mean(self._dark, self.darks, counts)
        self.darks += len(counts)
        self._forget()
        if unfit is not None:
            raise unfit

    def add_flats(self, counts: np.ndarray, *, times_s: np.ndarray | None = None, after: int = 0) -> None:
        """Take flats (n, n_v, n_u), taken together after so many projections, into the mean of their set.

        Raises ValueError, and leaves them out, when they show no beam.
        """
        if not len(counts):
            return
        # By themselves: among good flats, those taken with the shutter closed would only lower the mean.
        if self._borrowed_darks and (self._unasked or not _fit(self._dark, _mean(counts))):
            # A run's own flats are never held against what it may not even have asked for.
            find_dead(np.zeros_like(self._dark), _mean(counts))
            self._dark, self.darks, self._borrowed_darks = np.zeros_like(self._dark), 0, False
        else:
            find_dead(self._dark, _mean(counts))
        if self._borrowed_flats:
            self._sets, self._borrowed_flats = (), False
        self._require_beam(counts)
        saturated = float(np.count_nonzero(counts >= self._saturation)) / counts[0].size
        n = self.flats
        self._saturated_flats = (self._saturated_flats * n + saturated) / (n + len(counts))
        time_s = float(np.mean(times_s)) if times_s is not None else np.nan
        flats = FlatSet(mean=np.zeros(self.shape, dtype=np.float32), n=0, after=after, time_s=time_s)
        flats = next((known for known in self._sets if known.after == after), flats)
        total = flats.n + len(counts)
        joined = FlatSet(
            mean=_running_mean(flats.mean, flats.n, counts),
            n=total,
            after=after,
            time_s=(flats.n * flats.time_s + len(counts) * time_s) / total,
        )
        others = [known for known in self._sets if known.after != after]
        self._sets = tuple(sorted([*others, joined], key=lambda known: known.after))
        self._forget()

    def _require_beam(self, counts: np.ndarray) -> None:
        """Raise ValueError when flats are much darker than those before."""
        if not self._sets:
            return
        dark, first, now = (float(image.mean()) for image in (self._dark, self._sets[0].mean, counts))
        if now - dark < LEAST_BEAM * (first - dark):
            raise ValueError(
                f"these flats read {now:.1f} counts, the first ones {first:.1f} and the darks {dark:.1f}: with less "
                f"than {LEAST_BEAM:.0%} of the beam they were left out. Did the shutter open? Take flats again"
            )

    def _forget(self) -> None:
        self._compared = self._latest = None
        self.revision += 1

    def _compare(self) -> _Compared:
        """Compare each set with the darks; a pixel that is dead in one set is dead in all."""
        is_dead = np.logical_or.reduce([find_dead(self._dark, flats.mean) for flats in self._sets])
        gains = tuple(gain_of(self._dark, flats.mean, is_dead) for flats in self._sets)
        first = Reference(dark=self._dark, gain=gains[0], saturation=self._saturation, **neighbours(is_dead))
        changes = tuple(after - before for before, after in pairwise(gains))
        return _Compared(gains=gains, changes=changes, first=first)

    def _place(self, time_s: float, acquisition: int) -> tuple[int, float]:
        """Return the set before a projection, and how far, from 0 to 1, the projection lies on the way to the next."""
        taken = sum(flats.after <= acquisition for flats in self._sets)
        if taken == 0:
            return 0, 0.0
        first = taken - 1
        if taken == len(self._sets):
            return first, 0.0
        before, following = self._sets[first], self._sets[first + 1]
        part = np.nan
        if before.time_s < following.time_s:
            part = (time_s - before.time_s) / (following.time_s - before.time_s)
        if not 0 <= part <= 1:
            part = (acquisition + 0.5 - before.after) / (following.after - before.after)
        return first, float(part)


def _fit(dark: np.ndarray, flat: np.ndarray) -> bool:
    """Tell whether flats (n_v, n_u) show a beam above the darks."""
    try:
        find_dead(dark, flat)
    except ValueError:
        return False
    return True


def _mean(frames: np.ndarray) -> np.ndarray:
    """Return the mean of frames (n, n_v, n_u), float32 (n_v, n_u)."""
    return frames.mean(axis=0, dtype=np.float32)


def _running_mean(mean: np.ndarray, n: int, frames: np.ndarray) -> np.ndarray:
    """Return the mean of n earlier frames and these; a new array, since the old one may be in use."""
    for frame in frames:
        n += 1
        mean = mean + (frame.astype(np.float32) - mean) / np.float32(n)
    return mean
