"""Pairs of the simulated experiments, as the sampler and the reconstruction of a run make them, but few and small."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import numpy as np

from bluesky_jit.bench import experiments
from bluesky_jit.bench.experiments import QUICK, TUNING_SEEDS, recording, slices
from bluesky_jit.learn.noise2inverse import make_pairs
from bluesky_jit.learn.patch_sampler import PatchSampler
from bluesky_jit.learn.region import field_cylinder
from bluesky_jit.messages import Pairs
from sim_devices.phantom import ExperimentName


def experiment_batches(
    name: ExperimentName,
    folder: Path,
    *,
    start_s: float,
    count: int,
    seed: int,
    guard: bool = False,
    frames: int = 1,
    depth: int = 1,
    photons: float = experiments.PHOTONS,
) -> list[Pairs]:
    """Return batches of 32 pairs to train on, or of the guard region; folder: where the recording is kept."""
    with patch.object(experiments, "PHOTONS", photons):
        window = recording(QUICK, name, TUNING_SEEDS[0], start_s, folder).window(frames=frames)
    sampler = PatchSampler(
        field_cylinder(QUICK.geometry),
        voxel_mm=QUICK.geometry.voxel_mm,
        patch=16,
        batch=32,
        depth=depth,
        seed=seed,
        shown=slices(QUICK, (0.2,)).values(),
    )
    made = [window.pairs(sampler.held_out() if guard else sampler.train()) for _ in range(count)]
    return [make_pairs(splits) for splits in made if splits is not None]


def joined(batches: list[Pairs]) -> Pairs:
    return Pairs(u=np.concatenate([one.u for one in batches]), v=np.concatenate([one.v for one in batches]))
