"""A stored scan, whatever it is stored in: which frames there are, where they lie and in what order they were taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from bluesky_jit.intake.frames import as_counts
from bluesky_jit.messages import AngleSource, FrameKind, ProjectionBlock

KINDS: tuple[FrameKind, ...] = ("dark", "flat", "projection")
"""In the order in which reconstruction wants them."""

Told = Callable[[str], None]
"""Told of each frame that is left out, in a sentence."""


class UnreadableFrames(ValueError):
    """Say which frames of a stored scan cannot be read, and why."""


class FrameStore(Protocol):
    """Hold pictures one after the other, numbered from 0 on."""

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return frames (n, n_v, n_u); raise UnreadableFrames when any of them cannot be read."""
        ...

    def name(self, row: int) -> str:
        """Return what people find a frame by."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HDF5Frames:
    """Read frames from a dataset (rows, n_v, n_u)."""

    path: Path
    dataset: str

    def read(self, rows: np.ndarray) -> np.ndarray:
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                dataset: Any = file[self.dataset]
                first, end = int(rows[0]), int(rows[-1]) + 1
                # Rows that follow each other come several times faster this way.
                return dataset[first:end] if end - first == len(rows) else dataset[rows]
        except (OSError, RuntimeError, KeyError) as error:
            # h5py raises any of them for what is cut off, spoilt or gone.
            first, last = int(rows[0]), int(rows[-1])
            which = self.name(first) if first == last else f"rows {first} to {last} of {self.dataset} in {self.path}"
            raise UnreadableFrames(f"{which} cannot be read: {error}") from error

    def name(self, row: int) -> str:
        return f"row {row} of {self.dataset} in {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFrames:
    """Point at the frames of one kind, in the order they were taken.

    rows: which of the store's, (n,); numbers: as the detector counted them from 0 on, with gaps where frames were lost,
    by default without; after: for darks and flats, how many of the projections there are had been taken before each,
    (n,), or None where that is not known.
    """

    store: FrameStore
    rows: np.ndarray
    numbers: np.ndarray | None = None
    after: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredScan:
    """Point at the frames of a stored scan.

    angles_rad: one for each projection; times_s: when each was taken, in seconds from any moment, NaN where that is not
    recorded; says: what the scan says of its set-up, as settings: sections with their values; exposure_s: of one frame;
    lost: frames that should be there and are not, a sentence each.
    """

    path: Path
    layout: str
    frames: Mapping[FrameKind, StoredFrames]
    angles_rad: np.ndarray
    frame_shape: tuple[int, int]
    angle_source: AngleSource = "frame attribute"
    times_s: np.ndarray = field(default_factory=lambda: np.zeros(0))
    says: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    exposure_s: float | None = None
    lost: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def called(self) -> str:
        """Return a short name for people."""
        return self.path.name

    @property
    def tomo(self) -> Mapping[str, Any]:
        """Return what a run would say in its `tomo` block; the set-up is in `says`, which settings come before."""
        return {} if self.exposure_s is None else {"exposure_s": self.exposure_s}

    @property
    def n_projections(self) -> int:
        return len(self.angles_rad)

    @property
    def n_taken(self) -> int:
        """Return how many projections were taken, those that are lost included."""
        return self.n_projections + len(self.lost)

    @property
    def counts(self) -> dict[FrameKind, int]:
        """Return how many frames there are of each kind."""
        return {kind: len(frames) for kind, frames in self.frames.items()}

    def blocks(self, *, size: int = 64, kinds: tuple[FrameKind, ...] = KINDS) -> Iterator[ProjectionBlock]:
        """Yield all darks, all flats and then projections, in blocks of at most `size` frames taken together."""
        for kind in kinds:
            if kind in self.frames:
                for first, end in taken_together(self._after(kind)):
                    yield from self._part(kind, first, end, size, None)

    def blocks_as_taken(self, *, size: int = 64, told: Told | None = None) -> Iterator[ProjectionBlock]:
        """Yield the same blocks as they were taken; told: of frames that cannot be read, which are then left out."""
        after: dict[FrameKind, np.ndarray] = {k: self._after(k) for k in self.frames if k != "projection"}
        for kind, first, end in as_taken(after, self.n_projections):
            yield from self._part(kind, first, end, size, told)

    def _after(self, kind: FrameKind) -> np.ndarray:
        after = self.frames[kind].after
        return np.zeros(len(self.frames[kind]), dtype=np.int64) if after is None else after

    def _part(self, kind: FrameKind, first: int, end: int, size: int, told: Told | None) -> Iterator[ProjectionBlock]:
        """Yield frames first to end of a kind."""
        for start in range(first, end, size):
            numbers = np.arange(start, min(start + size, end))
            frames = self.frames[kind]
            counts, kept = readable(frames.store, frames.rows[numbers], kind, told)
            if len(kept):
                yield self._block(kind, numbers[kept], counts)

    def _block(self, kind: FrameKind, numbers: np.ndarray, counts: np.ndarray) -> ProjectionBlock:
        n, frames = len(numbers), self.frames[kind]
        return ProjectionBlock(
            run_uid=str(self.path),
            kind=kind,
            counts=counts,
            acquisition=numbers,
            unique_ids=numbers if frames.numbers is None else frames.numbers[numbers],
            frame_times_s=np.full(n, np.nan),
            received_times_s=np.full(n, np.nan),
            angles_rad=self.angles_rad[numbers] if kind == "projection" else np.full(n, np.nan),
            angle_source=self.angle_source,
            after=None if frames.after is None else int(frames.after[numbers[0]]),
        )


def readable(store: FrameStore, rows: np.ndarray, kind: FrameKind, told: Told | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames that can be used, uint16 (n, n_v, n_u), and which of `rows` they are.

    told: of those that cannot be read or are no counts; without it the first of them raises ValueError.
    """
    try:
        return as_counts(store.read(rows), kind), np.arange(len(rows))
    except ValueError:
        if told is None:
            raise
    # One by one, to lose no more than what is spoilt.
    found: list[np.ndarray] = []
    kept: list[int] = []
    for number, row in enumerate(rows):
        try:
            found.append(as_counts(store.read(rows[number : number + 1]), kind))
            kept.append(number)
        except UnreadableFrames as error:
            told(f"{error}: it is left out")
        except ValueError as error:
            told(f"{store.name(int(row))} is no picture of counts: {error}")
    return np.concatenate(found) if found else np.zeros((0, 0, 0), dtype=np.uint16), np.array(kept, dtype=np.int64)


def taken_together(after: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the first and the end of each series of frames with no projection between them; after: (n,)."""
    edges = np.flatnonzero(np.diff(after)) + 1
    yield from pairwise([0, *edges.tolist(), len(after)])


def as_taken(after: Mapping[FrameKind, np.ndarray], n_projections: int) -> Iterator[tuple[FrameKind, int, int]]:
    """Yield the kind, the first and the end of each series of frames, in the order in which they were taken.

    after: of darks and flats, how many projections had been taken before each. But those that were taken once only come
    first, for without them nothing can be shown.
    """
    once = {kind for kind, taken in after.items() if len(np.unique(taken)) == 1}
    series: list[tuple[int, FrameKind, int, int]] = [
        (0 if kind in once else int(after[kind][first]), kind, first, end)
        for kind in KINDS
        if kind in after
        for first, end in taken_together(after[kind])
        if end > first
    ]
    done = 0
    for place, kind, first, end in sorted(series, key=lambda item: item[0]):
        if place > done:
            yield "projection", done, place
            done = place
        yield kind, first, end
    if done < n_projections:
        yield "projection", done, n_projections
