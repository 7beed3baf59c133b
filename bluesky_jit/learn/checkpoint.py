"""Checkpoints: all that training needs to go on, in files that hold tensors and plain values, never code."""

from __future__ import annotations

import io
import logging
import math
import os
import pickle
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bluesky_jit.learn.presets import Preset

logger = logging.getLogger(__name__)

VERSION = 2
SUFFIX = ".pt"
KEPT = 3
"""Checkpoints kept: the newest, and two in case it is not to one's liking."""


class Checkpoints:
    """Keep the newest checkpoints of one training in a folder of its own, numbered as they were written.

    By time, steps, or both: whichever comes first.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        every_s: float = math.inf,
        every_steps: float = math.inf,
        kept: int = KEPT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, value in (("every_s", every_s), ("every_steps", every_steps), ("kept", kept)):
            if not value > 0:
                raise ValueError(f"{name} is {value}: give a number above 0")
        self.folder = Path(folder).expanduser()
        self._every_s = every_s
        self._every_steps = every_steps
        self._kept = kept
        self._clock = clock
        self._last_s = clock()
        self._last_step = 0

    def due(self, step: int) -> bool:
        """Return whether it is time for one; training that started afresh counts its steps from 0."""
        self._last_step = min(self._last_step, step)
        return self._clock() - self._last_s >= self._every_s or step - self._last_step >= self._every_steps

    def save(self, state: dict[str, Any]) -> Path:
        """Write a state, remove those that are too many, and return where it is."""
        # Also when it fails: a full disk is asked again after the interval, not at every step.
        self._last_s, self._last_step = self._clock(), state["step"]
        numbers = self._numbers()
        path = self._path(numbers[-1] + 1 if numbers else 1)
        write(state, path)
        for number in numbers[: len(numbers) + 1 - self._kept]:
            self._path(number).unlink(missing_ok=True)
        return path

    def newest(self) -> dict[str, Any] | None:
        """Return the newest state that can be read, None without any; what cannot be read is told in the log."""
        for number in reversed(self._numbers()):
            try:
                return read(self._path(number))
            except (OSError, ValueError) as error:
                logger.warning("%s", error)
        return None

    def _numbers(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        found = (re.fullmatch(rf"(\d+){re.escape(SUFFIX)}", path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}{SUFFIX}"


def write(state: dict[str, Any], path: str | Path) -> None:
    """Write a state, whole or not at all: aside, and then renamed; raise OSError when it cannot be written."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # PyTorch says of a full disk with a RuntimeError, as of much else; a file does with an OSError.
    content = io.BytesIO()
    torch.save(state, content)
    aside = path.with_name(path.name + ".part")
    try:
        with aside.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            # Renamed before its contents are on the disk, it would be empty after a power cut.
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def read(path: str | Path) -> dict[str, Any]:
    """Return the state in a file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}: check the path")
    spoilt = f"{path} is not a whole checkpoint: remove it and resume from an older one"
    # PyTorch writes archives, whose contents are listed at the end.
    if not zipfile.is_zipfile(path):
        raise ValueError(spoilt)
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        raise ValueError(spoilt) from error
    if not isinstance(state, dict) or "version" not in state:
        raise ValueError(f"{path} is no checkpoint of training: remove it, or give the folder of one")
    return state


def require_fit(state: dict[str, Any], preset: Preset) -> None:
    """Refuse a state that another version of this program wrote, or that is of another preset."""
    if state.get("version") != VERSION:
        raise ValueError(f"the checkpoint has version {state.get('version')}: this program reads {VERSION}")
    if state["preset"] != preset.name:
        raise ValueError(
            f"the checkpoint is of preset {state['preset']} and this model of {preset.name}: set learn.preset to match"
        )
