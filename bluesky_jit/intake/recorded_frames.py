"""The frames of a run that Tiled has recorded, wherever its server keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bluesky_jit.archive import answering
from bluesky_jit.intake.angle_unit import AngleUnit
from bluesky_jit.intake.dialects import StreamKeys
from bluesky_jit.intake.stored_scan import KINDS, Told, as_taken, readable, taken_together
from bluesky_jit.messages import AngleSource, FrameKind, ProjectionBlock


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFrames:
    """Point at the frames of one stream that count, in the order in which they were taken.

    stream, image: Tiled's clients of it, and of its array (rows, …, n_v, n_u); rows: which of its frames, (n,), and for
    each of them the unique id, its number (from 0 on, with gaps for what was lost), the time stamp in Unix seconds (NaN
    when unknown), the angle (NaN for darks and flats) and, after, how many projections had been taken before it.
    """

    keys: StreamKeys
    stream: Any
    image: Any
    rows: np.ndarray
    unique_ids: np.ndarray
    numbers: np.ndarray
    times_s: np.ndarray
    angles_rad: np.ndarray
    after: np.ndarray
    flats: str = "this run"
    angle_source: AngleSource | None = None
    """By default the stream's."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def source(self) -> AngleSource:
        return self.angle_source or self.keys.angle_source

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Fetch frames (n, n_v, n_u), in one request."""
        # Some detectors record several frames an event.
        per_row = int(np.prod(self.image.shape[1:-2], dtype=np.int64))
        start, stop = int(rows[0]) // per_row, int(rows[-1]) // per_row + 1
        frames = np.asarray(self.image[start:stop]).reshape(-1, *self.keys.frame_shape)
        return frames[rows - start * per_row]

    def name(self, row: int) -> str:
        return f"row {row} of {self.keys.image}"

    def only(self, chosen: np.ndarray) -> RecordedFrames:
        """Return some of the frames."""
        columns = ("rows", "unique_ids", "numbers", "times_s", "angles_rad", "after")
        return replace(self, **{name: getattr(self, name)[chosen] for name in columns})


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedScan:
    """Hold where the frames of a run are; tomo: the metadata block of its start document."""

    uid: str
    place: str
    tomo: Mapping[str, Any]
    frames: Mapping[FrameKind, RecordedFrames]
    angles_per_turn: int | None

    @property
    def name(self) -> str:
        return f"run {self.uid} in Tiled at {self.place}"

    @property
    def called(self) -> str:
        """Return a short name for people."""
        return f"run {self.uid[:8]}"

    @property
    def n_projections(self) -> int:
        return len(self.frames["projection"])

    @property
    def angles_rad(self) -> np.ndarray:
        return self.frames["projection"].angles_rad

    @property
    def frame_shape(self) -> tuple[int, int]:
        return self.frames["projection"].keys.frame_shape

    @property
    def angle_source(self) -> AngleSource:
        return self.frames["projection"].source

    @property
    def layout(self) -> str:
        return "Tiled"

    @property
    def says(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what it says of its set-up as settings: nothing, for its `tomo` block says it."""
        return {}

    @property
    def times_s(self) -> np.ndarray:
        return self.frames["projection"].times_s

    @property
    def n_taken(self) -> int:
        """Return how many projections were taken, those that were lost on the way included."""
        return int(self.frames["projection"].numbers[-1]) + 1

    @property
    def lost(self) -> tuple[str, ...]:
        """Return the projections that were taken and not recorded, a sentence each."""
        missing = sorted(set(range(self.n_taken)) - set(self.frames["projection"].numbers.tolist()))
        return tuple(f"projection {number} of run {self.uid[:8]} was not recorded" for number in missing)

    @property
    def counts(self) -> dict[FrameKind, int]:
        """Return how many frames there are of each kind."""
        return {kind: len(frames) for kind, frames in self.frames.items()}

    def blocks(self, *, size: int = 64, kinds: tuple[FrameKind, ...] = KINDS) -> Iterator[ProjectionBlock]:
        """Yield all darks, all flats and then projections, in blocks of at most `size` frames taken together.

        Projections are numbered as they were recorded, without gaps for those that were lost.
        """
        unit = self._unit()
        for kind in kinds:
            if kind in self.frames:
                for first, end in taken_together(self.frames[kind].after):
                    yield from self._part(kind, first, end, size, unit, None)

    def blocks_as_taken(self, *, size: int = 64, told: Told | None = None) -> Iterator[ProjectionBlock]:
        """Yield the same blocks as they were taken, unique ids counting from 0 on; told: of frames that are no counts.

        What the server cannot give raises OSError.
        """
        unit = self._unit()
        after: dict[FrameKind, np.ndarray] = {k: frames.after for k, frames in self.frames.items() if k != "projection"}
        for kind, first, end in as_taken(after, self.n_projections):
            for block in self._part(kind, first, end, size, unit, told):
                yield replace(block, unique_ids=self.frames[kind].numbers[block.acquisition])

    def _unit(self) -> AngleUnit | None:
        return AngleUnit(self.angles_per_turn, _scan_mode(self.tomo)) if self.angles_per_turn else None

    def _part(
        self, kind: FrameKind, first: int, end: int, size: int, unit: AngleUnit | None, told: Told | None
    ) -> Iterator[ProjectionBlock]:
        """Yield frames first to end of a kind."""
        frames = self.frames[kind]
        for start in range(first, end, size):
            numbers = np.arange(start, min(start + size, end))
            with answering(self.place):
                counts, kept = readable(frames, frames.rows[numbers], kind, told)
            if not len(kept):
                continue
            block = self._block(frames, numbers[kept], counts)
            if unit is not None:
                unit.check(block)
            yield block

    def _block(self, frames: RecordedFrames, numbers: np.ndarray, counts: np.ndarray) -> ProjectionBlock:
        kind = frames.keys.kind
        return ProjectionBlock(
            run_uid=self.uid,
            kind=kind,
            counts=counts,
            acquisition=numbers,
            unique_ids=frames.unique_ids[numbers],
            frame_times_s=frames.times_s[numbers],
            received_times_s=np.full(len(numbers), np.nan),
            angles_rad=frames.angles_rad[numbers],
            angle_source=frames.source,
            flats=frames.flats,
            after=None if kind == "projection" else int(frames.after[numbers[0]]),
        )


def _scan_mode(tomo: Mapping[str, Any]) -> str:
    return str(tomo.get("scan_mode") or "sequential")
