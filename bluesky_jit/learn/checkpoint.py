"""Checkpoints: all that training needs to go on, in files that hold tensors and plain values, never code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from bluesky_jit.learn.presets import Preset

VERSION = 2
SUFFIX = ".pt"
KEPT = 3
"""Checkpoints kept: the newest, and two in case it is not to one's liking."""


def write(state: dict[str, Any], path: str | Path) -> None:
    """Write a state, whole or not at all: aside, and then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    with aside.open("wb") as file:
        torch.save(state, file)
        file.flush()
        # Renamed before its contents are on the disk, it would be empty after a power cut.
        os.fsync(file.fileno())
    aside.replace(path)


def read(path: str | Path) -> dict[str, Any]:
    """Return the state in a file."""
    path = Path(path)
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no checkpoint {path}: check learn.checkpoint_folder") from None
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} is not a whole checkpoint ({str(error).splitlines()[0]}): remove it and resume from an older one"
        ) from error
    if not isinstance(state, dict) or "version" not in state:
        raise ValueError(f"{path} is no checkpoint of training: remove it, or give the folder of one")
    return state


def require_fit(state: dict[str, Any], preset: Preset) -> None:
    """Refuse a state that another version of this program wrote, or that is of another preset."""
    if state.get("version") != VERSION:
        raise ValueError(f"the checkpoint has version {state.get('version')}: this program reads {VERSION}")
    if state["preset"] != preset.name:
        raise ValueError(
            f"the checkpoint is of preset {state['preset']} and this trainer of {preset.name}: "
            "set learn.preset to match"
        )
