"""Training pairs for benchmarks, made as a session makes them: patches, their splits, pairs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bluesky_jit.bench.experiments import Recording
from bluesky_jit.learn.noise2inverse import make_pairs
from bluesky_jit.learn.patch_sampler import PatchSampler
from bluesky_jit.learn.presets import Preset
from bluesky_jit.learn.region import Region
from bluesky_jit.messages import Pairs
from bluesky_jit.tomo.grid import Grid

BATCH = 32
"""Pairs in a batch, as in the paper."""
PAPER_PATCH = 20
FEWEST = 200
"""Pairs of the largest patches that an accuracy is measured on, at least."""


class PairSource:
    """Make pairs for a preset from a recording, each batch from a window drawn at random of those in the recording.

    region: where patches lie, by default the jar (the paper takes none outside of its container); shown: slices that
    all patches are parallel to, instead of being turned at random; voxel_mm: other than the detector's; turns: windows
    lie between the first of these and the second, by default anywhere.
    """

    def __init__(
        self,
        recording: Recording,
        preset: Preset,
        *,
        seed: int,
        region: Region | None = None,
        shown: Iterable[Grid] = (),
        voxel_mm: float | None = None,
        turns: tuple[int, int] | None = None,
    ) -> None:
        setup = recording.setup
        first, end = turns or (0, setup.turns)
        self._held_out = setup.held_out
        self._patch = preset.patch
        self._window = recording.window(frames=preset.frames)
        chosen = tuple(shown)
        self._sampler = PatchSampler(
            region or recording.jar,
            voxel_mm=voxel_mm or setup.geometry.voxel_mm,
            patch=preset.patch,
            batch=BATCH,
            depth=preset.depth,
            seed=seed,
            whole_fraction=0.0 if chosen else 1.0,
            shown=chosen,
        )
        self._rng = np.random.default_rng([seed, 1])
        # A sequence needs the projections of its first frame too.
        self._first = (first + 1) * setup.angles_per_turn + (preset.frames - 1) * setup.frame_spacing - 1
        self._last = end * setup.angles_per_turn - 1

    def batch(self) -> Pairs:
        """Return pairs from one window."""
        until = int(self._rng.integers(self._first, self._last + 1))
        splits = self._window.pairs(self._sampler.train(), until=until)
        if splits is None:
            raise RuntimeError(f"the recording has no window that ends at projection {until}")
        return make_pairs(splits)

    def held_out(self) -> Pairs:
        """Return as many pairs as an accuracy is measured on, fewer of larger patches; call it on a later recording."""
        count = max(round(self._held_out * PAPER_PATCH**2 / self._patch**2), min(FEWEST, self._held_out))
        batches = [self.batch() for _ in range(-(-min(count, self._held_out) // BATCH))]
        return Pairs(u=np.concatenate([pairs.u for pairs in batches]), v=np.concatenate([pairs.v for pairs in batches]))
