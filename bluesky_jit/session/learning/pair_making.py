"""What the pairs stage makes of the window: pairs to learn from, and what the network is judged by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Event

import numpy as np

from bluesky_jit.learn.buffer import PairBuffer
from bluesky_jit.learn.noise2inverse import PatchSampler, make_pairs
from bluesky_jit.learn.region import field_cylinder
from bluesky_jit.learn.region_finder import RegionFinder
from bluesky_jit.messages import Pairs
from bluesky_jit.session.couplings import Latest
from bluesky_jit.session.learning.held_out import HeldOutWindows
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Priority
from bluesky_jit.tomo.reconstructor import Reconstructor, SliceSet

GUARD_EVERY = 20
"""Training batches between two of the guard region: about one in twenty is spent on telling how good it is."""
GUARD_PATCHES = 32
"""Patches that a guard figure comes from, at least: the accuracy of one scatters by about 0.1, and so few as make a
small batch would hardly tell a good network from the raw slice."""
PROBE_EVERY = 4
"""Training batches between two of the newest projections while those are kept from training: a jump is to be noticed
within a few batches then, too."""
WHOLE_SHARE = 1 / 20
"""Points of whole slices that are made to judge by, as part of the points that are made to train on."""
WHOLE_AT_ONCE = 2**20
"""Points of whole slices that are made at once: one core takes about a second for them. Of larger ones one is made, in
turns."""
UNSEEN_BATCHES = 8
"""Batches of unseen projections that are judged at a time: the accuracy of patches scatters by about 0.1, so that of
256 of them is known to 0.006, a fifth of the margin within which slices become ready."""
PICKS_PER_PAIR = 4
"""How often a pair is trained on, on average, once the buffer is full. Pairs made as fast as they can be cost the
trainer its core: two busy cores took 107 steps a second so, and 335 with this limit (docs/explanations/learning.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeSlice:
    """Carry a slice on show, to be judged as a whole.

    shown: the slab (nt, nz, ny, nx) that it is denoised from, and what it was made of; pairs: the same from the splits,
    one of them; halves: u and v each of half the splits; inside: bool (ny, nx), what every projection sees.
    """

    name: str
    grid: Grid
    shown: SliceSet
    pairs: Pairs
    halves: Pairs
    inside: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """Carry what was made of projections none of which was trained on; `passed` takes whether the network has."""

    batches: tuple[Pairs, ...]
    slices: tuple[WholeSlice, ...]
    passed: Latest[bool]


class PairMaking:
    """Make pairs from a window. One thread makes them; the trainer's takes what it is given."""

    def __init__(
        self,
        finder: RegionFinder,
        sampler: PatchSampler,
        buffer: PairBuffer,
        windows: HeldOutWindows,
        *,
        depth: int,
        seed: int,
        compare: bool = False,
    ) -> None:
        """Begin; depth: slices that a slab to be denoised has; compare: judge by all of the guard region, too."""
        self._compare = compare
        self._finder = finder
        self._sampler = sampler
        self.buffer = buffer
        self._windows = windows
        self._depth = depth
        self._rng = np.random.default_rng(seed)
        self._batches = 0
        self._points = 0
        """Points made to train on, less those that whole slices to judge by have been paid with."""
        self._turn = 0
        self._unseen: Unseen | None = None
        self._newest = 0
        self.shown: dict[str, Grid] = {}
        """The slices on show that patches are made near."""
        self.incoming: Latest[Pairs] = Latest()
        """Pairs of projections that are kept from training: what comes in, while a cut lasts."""
        self.guard: Latest[Pairs] = Latest()
        self.anywhere: Latest[Pairs] = Latest()
        """Pairs of the guard region, wherever no slice is shown."""
        self.unseen: Latest[Unseen] = Latest()
        self.whole: Latest[WholeSlice] = Latest()
        self.worth_judging = False
        """Written by the trainer: whether the network does well where the figures are that come often."""
        self.guard_moved = Event()
        """Set when the guard region lies where patches were trained on."""
        self.jumped = Event()
        """Set by the trainer when the data has changed abruptly: nothing is kept from training then."""

    @property
    def is_cut(self) -> bool:
        """Say whether the newest projections are kept from training."""
        return self._windows.is_cut

    def forget_judged_by(self) -> None:
        """Take back what waits to be judged by: after a jump it is of what is no longer there."""
        for slot in (self.incoming, self.guard, self.anywhere, self.whole):
            slot.take()
        unseen = self.unseen.take()
        if unseen is not None:
            unseen.passed.put(False)

    def make(self, reconstruction: Reconstructor, shown: dict[str, Grid], *, train: bool = True) -> bool:
        """Make the next batch of whatever is due; return False when nothing is wanted now.

        train: whether there may be pairs to train on; without them there are only those that the network is judged by.
        """
        newest = reconstruction.newest
        if newest is None:
            return False
        self.shown = shown
        self._sampler.show(shown.values())
        if self.jumped.is_set():
            # In this order: while it is set the trainer judges by nothing that was made before.
            self.forget_judged_by()
            self._unseen = None
            self._windows.lift(newest)
            # A window that holds projections of before shows the old sample.
            self._finder.look_again(after=newest + reconstruction.n_projections)
            self.worth_judging = False
            self.jumped.clear()
        passed = self._unseen.passed.take() if self._unseen is not None else None
        if passed is not None:
            self._windows.judged(self._newest, passed=passed)
            self._unseen = None
        if self._finder.update(reconstruction) and self._sampler.move(self._finder.region):
            self.guard_moved.set()
        if self._unseen is None and self._windows.is_unseen(newest):
            try:
                return self._make_unseen(reconstruction, shown, newest)
            except ValueError:
                # What cannot be made once may never be; training is not to wait for it.
                self._windows.judged(newest, passed=False)
                raise
        if not train:
            return self._make_guard(reconstruction)
        if not self.buffer.wants_pairs(PICKS_PER_PAIR):
            return False
        until = self._windows.until(newest)
        # Where none are kept back the window may have moved on from `newest`, and remembers nothing.
        splits = reconstruction.pairs(self._sampler.train(), until=until if self._windows.ever_cut else None)
        if splits is None:
            return False
        self._windows.trained_on(until, worth_judging=self.worth_judging)
        pairs = self._pairs_of(splits)
        self.buffer.push(pairs)
        self._points += pairs.u.size
        if self._batches % GUARD_EVERY == 0:
            self._make_guard(reconstruction)
        if self._windows.is_cut and self._batches % PROBE_EVERY == 0:
            probe = reconstruction.pairs(self._sampler.train())
            if probe is not None:
                self.incoming.put(self._pairs_of(probe))
        if self.worth_judging:
            self._make_whole_slice(reconstruction, shown, newest)
        self._batches += 1
        return True

    def _pairs_of(self, splits: np.ndarray) -> Pairs:
        return make_pairs(splits, rng=self._rng)

    def _make_guard(self, reconstruction: Reconstructor) -> bool:
        splits = reconstruction.pairs(self._of_guard())
        if splits is not None:
            self.guard.put(self._pairs_of(splits))
        anywhere = reconstruction.pairs(self._of_guard(anywhere=True)) if self._compare else None
        if anywhere is not None:
            self.anywhere.put(self._pairs_of(anywhere))
        return splits is not None

    def _of_guard(self, *, anywhere: bool = False) -> tuple[Grid, ...]:
        """Return whole batches of the guard region's grids, as many as a figure needs."""
        grids = self._sampler.held_out(anywhere=anywhere)
        while len(grids) < GUARD_PATCHES:
            grids += self._sampler.held_out(anywhere=anywhere)
        return grids

    def _make_unseen(self, reconstruction: Reconstructor, shown: dict[str, Grid], newest: int) -> bool:
        """Make patches and whole slices of the newest window, which holds nothing that was trained on."""
        batches = [reconstruction.pairs(self._sampler.train()) for _ in range(UNSEEN_BATCHES)]
        names = list(shown)
        if sum(int(np.prod(grid.shape)) for grid in shown.values()) > WHOLE_AT_ONCE:
            self._turn += 1
            names = [names[self._turn % len(names)]]
        slices = [self._whole_slice(reconstruction, name, shown[name], newest) for name in names]
        made = [splits for splits in batches if splits is not None]
        if not made:
            return False
        self._newest = newest
        self._unseen = Unseen(
            batches=tuple(self._pairs_of(splits) for splits in made),
            slices=tuple(one for one in slices if one is not None),
            passed=Latest(),
        )
        self.unseen.put(self._unseen)
        return True

    def _make_whole_slice(self, reconstruction: Reconstructor, shown: dict[str, Grid], newest: int) -> None:
        """Make one of the slices on show, in turns, when it is not too much beside what is trained on."""
        name = list(shown)[self._turn % len(shown)]
        points = 2 * int(np.prod(shown[name].shape))
        if self._points * WHOLE_SHARE < points:
            return
        self._points = 0
        self._turn += 1
        whole = self._whole_slice(reconstruction, name, shown[name], newest)
        if whole is not None:
            self.whole.put(whole)

    def _whole_slice(self, reconstruction: Reconstructor, name: str, grid: Grid, newest: int) -> WholeSlice | None:
        slab = grid.slab(self._depth)
        splits = reconstruction.pairs((slab,), until=newest)
        # What the window is made of, told of a single point of it: the rest is the mean of the splits.
        point = reconstruction.sequences((slab.patch((0, 0, 0), (1, 1, 1)),), until=newest, priority=Priority.PAIRS)
        if splits is None or point is None:
            return None
        geometry = reconstruction.geometry
        inside = field_cylinder(geometry).contains(grid.points()[0])
        first, second = splits[:, ::2].mean(axis=1), splits[:, 1::2].mean(axis=1)
        return WholeSlice(
            name=name,
            grid=grid,
            shown=replace(point, images=(splits.mean(axis=1)[0],)),
            pairs=self._pairs_of(splits),
            halves=Pairs(u=first, v=second),
            inside=inside,
        )
