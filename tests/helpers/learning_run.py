"""A small run that is learned from step by step, without threads: what the stages do, in a fixed order."""

from __future__ import annotations

from typing import Any

import numpy as np
from simulated_run import ANGLES, TOMO, frames

from bluesky_jit.messages import FrameKind, Problem, ProjectionBlock, RunStart
from bluesky_jit.session.learning.learner import Learner
from bluesky_jit.session.run import LiveRun
from bluesky_jit.settings import Settings, load_settings
from bluesky_jit.tomo.grid import Grid

POSITIONS = {"XY": 0.0, "XZ": 0.0, "YZ": 0.0}


class LearningRun:
    """Push projections of a resting sample, and take steps between them."""

    def __init__(
        self, streams: dict[str, np.ndarray], *, tomo: dict[str, Any] = TOMO, run_uid: str = "r", **learn: Any
    ) -> None:
        self.problems: list[Problem] = []
        self.run = LiveRun(
            RunStart(run_uid=run_uid, scan_id=1, plan_name="", time_s=0.0, tomo=tomo), learning_settings(**learn)
        )
        self._streams = streams
        self.pushed = 0
        self.run.prepare(streams["primary"].shape[1:])
        self.run.push(block("dark", streams["darks"]))
        self.run.push(block("flat", streams["flats"]))
        self.run.start_learning(self.problems.append)
        self.positions = dict(POSITIONS)

    @property
    def learner(self) -> Learner:
        assert self.run.learner is not None
        return self.run.learner

    @property
    def shown(self) -> dict[str, Grid]:
        return self.run.shown_grids(self.positions)

    def push(self, count: int) -> None:
        """Push the next projections; after the last of the stream its first ones come again."""
        numbers = np.arange(self.pushed, self.pushed + count)
        primary = self._streams["primary"]
        self.run.push(block("projection", primary[numbers % len(primary)], numbers))
        self.pushed += count

    def learn(self, steps: int) -> None:
        """Make pairs and train, in turns."""
        assert self.run.reconstruction is not None
        for _ in range(steps):
            self.learner.make_batch(self.run.reconstruction, self.shown)
            self.learner.train()


def learning_settings(**changes: Any) -> Settings:
    """Return settings of quick learning; `window` and `memory_gb` are those of the section tomo."""
    tomo = {name: changes.pop(name) for name in ("window", "memory_gb") if name in changes}
    return load_settings(environment={}, tomo=tomo, learn={"buffer": 160, "patch": 16, **changes})


def block(kind: FrameKind, counts: np.ndarray, numbers: np.ndarray | None = None) -> ProjectionBlock:
    n = len(counts)
    ids = np.arange(n) if numbers is None else numbers
    return ProjectionBlock(
        run_uid="r",
        kind=kind,
        counts=counts,
        acquisition=ids,
        unique_ids=ids,
        frame_times_s=1.79e9 + 0.01 * ids,
        received_times_s=1.79e9 + 0.01 * ids,
        angles_rad=2 * np.pi * ids / ANGLES if kind == "projection" else np.full(n, np.nan),
        angle_source="same stream",
    )


def small_frames(turns: int = 4, *, photons: float = 600) -> dict[str, np.ndarray]:
    return frames(turns, photons=photons)
