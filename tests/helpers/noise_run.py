"""A run of noise, for tests of what reconstructs it: flats, and projections of as many turns as one likes."""

from __future__ import annotations

import numpy as np

from bluesky_jit.messages import FrameKind, ProjectionBlock
from bluesky_jit.tomo.geometry import Geometry


def flats(geometry: Geometry) -> ProjectionBlock:
    return _block("flat", np.full((2, geometry.n_v, geometry.n_u), 40_000), np.full(2, np.nan), first=0)


def frames(geometry: Geometry, numbers: range, *, per_turn: int) -> ProjectionBlock:
    """Return projections of these acquisition numbers, different in every turn."""
    counts = np.stack(
        [
            np.random.default_rng(number).integers(10_000, 35_000, (geometry.n_v, geometry.n_u), dtype=np.uint16)
            for number in numbers
        ]
    )
    return _block("projection", counts, 2 * np.pi * np.array(numbers) / per_turn, first=numbers.start)


def _block(kind: FrameKind, counts: np.ndarray, angles_rad: np.ndarray, *, first: int) -> ProjectionBlock:
    numbers = np.arange(first, first + len(counts))
    return ProjectionBlock(
        run_uid="noise",
        kind=kind,
        counts=counts.astype(np.uint16),
        acquisition=numbers,
        unique_ids=numbers,
        frame_times_s=numbers * 0.01,
        received_times_s=numbers * 0.01,
        angles_rad=angles_rad,
        angle_source="same stream",
    )
