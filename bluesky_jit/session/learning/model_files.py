"""The files of what a run learns: models of earlier runs to start from, its own model at the end, and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from bluesky_jit.learn.checkpoint import Checkpoints
from bluesky_jit.learn.fingerprint import Fingerprint
from bluesky_jit.learn.presets import Preset
from bluesky_jit.learn.registry import Entry, Registry
from bluesky_jit.learn.weights import Weights
from bluesky_jit.messages import Pairs
from bluesky_jit.session.learning.choosing import Choosing
from bluesky_jit.settings_sections import LearnSettings

TRAINED_TO = "trained_to"
"""Beside a model's own state: the newest projection that it had been trained on."""


class ModelFiles:
    """Read and write one run's models, in the folders that the settings name; without them do nothing.

    What cannot be read or written is told, and learning goes on.
    """

    def __init__(
        self,
        settings: LearnSettings,
        run_uid: str,
        fingerprint: Callable[[Preset, float], Fingerprint],
        report: Callable[[str], None],
    ) -> None:
        """Begin; fingerprint: describes the set-up, given a preset and the noise of one split in 1/mm."""
        self._registry = Registry(settings.registry) if settings.registry else None
        folder = Path(settings.checkpoint_folder) / run_uid if settings.checkpoint_folder else None
        self._checkpoints = Checkpoints(folder, every_s=settings.checkpoint_every_s) if folder else None
        self._fingerprint = fingerprint
        self._report = report
        self._noise = math.nan
        self._told = False
        """People know that no checkpoint can be written."""

    def measure(self, pairs: Pairs) -> None:
        """Take from this run's first pairs how much noise it has, which tells set-ups apart."""
        self._noise = float(np.std(pairs.u.astype(np.float64) - pairs.v)) / math.sqrt(2)

    def nearest(self, preset: Preset) -> Entry | None:
        """Return the model of the most similar earlier run, once this one's noise is known."""
        if self._registry is None or not self._noise > 0:
            return None
        try:
            return self._registry.nearest(self._fingerprint(preset, self._noise))
        except (OSError, ValueError) as error:
            self._report(f"no model of an earlier run is used: {error}")
            return None

    def keep(self, weights: Weights, preset: Preset, figures: Mapping[str, float]) -> None:
        """Add what was learned to the models of earlier runs."""
        if self._registry is None or not self._noise > 0:
            return
        try:
            self._registry.save(weights, self._fingerprint(preset, self._noise), figures)
        except (OSError, ValueError) as error:
            self._report(f"what was learned could not be kept in {self._registry.folder}: {error}")

    def resume(self, choosing: Choosing) -> int:
        """Go on from this run's newest checkpoint; return the newest projection it was trained on, -1 without one."""
        state = self._checkpoints.newest() if self._checkpoints else None
        if state is None:
            return -1
        try:
            trained_to = int(state[TRAINED_TO])
            choosing.load_state_dict(state)
        except (ValueError, KeyError, RuntimeError) as error:
            # PyTorch says with a RuntimeError that weights do not fit a network.
            self._report(f"learning starts from nothing: {error}")
            return -1
        return trained_to

    def checkpoint(self, choosing: Choosing, trained_to: int) -> None:
        """Write a checkpoint when one is due."""
        if self._checkpoints is None or not self._checkpoints.due(choosing.model.step):
            return
        try:
            self._checkpoints.save({**choosing.state_dict(), TRAINED_TO: trained_to})
        except OSError as error:
            if not self._told:
                self._report(f"no checkpoint could be written to {self._checkpoints.folder}, going on trying: {error}")
            self._told = True
        else:
            self._told = False
