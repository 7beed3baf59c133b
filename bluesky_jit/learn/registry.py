"""Models that earlier runs have learnt, in a folder: each with the fingerprint of the set-up that made it."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError

import torch

from bluesky_jit.learn.fingerprint import Fingerprint
from bluesky_jit.learn.weights import Weights

logger = logging.getLogger(__name__)

REGISTRY_VERSION = 1
FORMAT = "bluesky_jit model"
KEPT = 64
"""Models kept in a folder, the newest ones. One of the default network takes 44 kB, the largest, of c32, 4.6 MB."""
FARTHEST = 2.0
"""Largest distance of fingerprints at which a model is tried: a factor of four in one thing. There a model was still
ahead of a fresh one after 100 steps, and at a factor of ten in noise behind (docs/explanations/learning.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Describe a model in the registry; figures: the held-out ones that it reached; versions: what it was made with."""

    path: Path
    """Its description; the weights are in a file beside it."""
    weights_file: Path
    digest: str
    """SHA-256 of that file."""
    fingerprint: Fingerprint
    figures: Mapping[str, float]
    step: int
    time_s: float
    versions: Mapping[str, str]

    def load(self) -> Weights:
        """Read the weights; raise ValueError, which names the file, when it is missing, damaged or another's."""
        try:
            content = self.weights_file.read_bytes()
        except OSError as error:
            raise ValueError(f"{self.weights_file} cannot be read: {error}") from error
        if hashlib.sha256(content).hexdigest() != self.digest:
            raise ValueError(f"{self.weights_file} is damaged: it is not the file that {self.path.name} describes")
        try:
            state = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
            weights = Weights(**state)
        except (RuntimeError, UnpicklingError, TypeError, EOFError) as error:
            raise ValueError(f"{self.weights_file} holds no weights that this program knows: {error}") from error
        if weights.preset != self.fingerprint.preset:
            raise ValueError(f"{self.weights_file} is of preset {weights.preset}, not {self.fingerprint.preset}")
        return weights


class Registry:
    """Keep models in a folder, and find the one whose set-up is nearest.

        registry = Registry("models")
        entry = registry.nearest(fingerprint)            # None: nothing near
        registry.save(model.snapshot(), fingerprint, {"held_out": 0.53})

    Several processes may use one folder: a model appears whole or not at all.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        kept: int = KEPT,
        farthest: float = FARTHEST,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = Path(folder).expanduser()
        self._kept = kept
        self._farthest = farthest
        self._clock = clock

    def save(self, weights: Weights, fingerprint: Fingerprint, figures: Mapping[str, float]) -> Entry:
        """Add a model, and drop the oldest above the number kept; raise OSError when it cannot be written."""
        if weights.preset != fingerprint.preset:
            raise ValueError(f"the weights are of preset {weights.preset} and the fingerprint of {fingerprint.preset}")
        self.folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        torch.save({part.name: getattr(weights, part.name) for part in fields(weights)}, buffer)
        content = buffer.getvalue()
        digest, now = hashlib.sha256(content).hexdigest(), self._clock()
        name = f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}-{weights.preset}-{digest[:8]}"
        entry = Entry(
            path=self.folder / f"{name}.json",
            weights_file=self.folder / f"{name}.pt",
            digest=digest,
            fingerprint=fingerprint,
            figures={key: float(value) for key, value in figures.items() if math.isfinite(value)},
            step=weights.step,
            time_s=now,
            versions={package: version(package) for package in ("bluesky-jit", "torch")},
        )
        # The description last: it is what makes the weights a model.
        _write(entry.weights_file, content)
        _write(entry.path, json.dumps(_described(entry), indent=2).encode())
        self._drop_oldest()
        return entry

    def entries(self) -> tuple[Entry, ...]:
        """Return the models, newest first; what is no model is left out, with a message that names the file."""
        found = []
        for path in self.folder.glob("*.json"):
            try:
                found.append(_read(path))
            except FileNotFoundError:
                # Another process has dropped it since.
                continue
            except (ValueError, OSError) as error:
                logger.warning("%s is left out of the models: %s", path, error)
        return tuple(sorted(found, key=lambda entry: (-entry.time_s, entry.path.name)))

    def nearest(self, fingerprint: Fingerprint) -> Entry | None:
        """Return the model of the nearest set-up, of equal ones the newest, or None when none is near.

        Only a model of the same preset and kind of beam can be near.
        """
        near = [(entry.fingerprint.distance(fingerprint), entry) for entry in self.entries()]
        near = [(distance, entry) for distance, entry in near if distance <= self._farthest]
        return min(near, key=lambda one: one[0])[1] if near else None

    def _drop_oldest(self) -> None:
        for entry in self.entries()[self._kept :]:
            # The description first, for the same reason.
            entry.path.unlink(missing_ok=True)
            entry.weights_file.unlink(missing_ok=True)


def _described(entry: Entry) -> dict[str, object]:
    return {
        "format": FORMAT,
        "version": REGISTRY_VERSION,
        "time_s": entry.time_s,
        "weights": {"file": entry.weights_file.name, "sha256": entry.digest, "step": entry.step},
        "figures": dict(entry.figures),
        "versions": dict(entry.versions),
        "fingerprint": entry.fingerprint.to_metadata(),
    }


def _read(path: Path) -> Entry:
    """Read a description; raise ValueError when it is not one of ours."""
    try:
        found = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"it is no JSON ({error})") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"it does not describe a {FORMAT}")
    if found.get("version") != REGISTRY_VERSION:
        raise ValueError(f"it has version {found.get('version')}, and this program reads {REGISTRY_VERSION}")
    try:
        weights_file = path.parent / found["weights"]["file"]
        entry = Entry(
            path=path,
            weights_file=weights_file,
            digest=str(found["weights"]["sha256"]),
            fingerprint=Fingerprint.from_metadata(found["fingerprint"]),
            figures={str(key): float(value) for key, value in found["figures"].items()},
            step=int(found["weights"]["step"]),
            time_s=float(found["time_s"]),
            versions={str(key): str(value) for key, value in found["versions"].items()},
        )
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"an entry is missing or of another type ({error!r})") from error
    if not math.isfinite(entry.time_s):
        raise ValueError(f"its time is {entry.time_s}")
    if weights_file.parent != path.parent or not re.fullmatch(r"[\w.-]+\.pt", weights_file.name):
        raise ValueError(f"its weights are to be in {weights_file}, which is no file beside it")
    return entry


def _write(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    part = path.with_name(f".{path.name}-{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
