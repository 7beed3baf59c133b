"""From messages about frames to frames: those of events and of the PVA tap, and those of files that fill its gaps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from bluesky_jit.intake.clocks import EPICS_EPOCH_S, unix_times
from bluesky_jit.intake.counts import UnusableCounts, as_counts, counted_frames
from bluesky_jit.intake.hdf5_closed import is_closed
from bluesky_jit.intake.hdf5_rows import HDF5Rows, is_here, path_of
from bluesky_jit.intake.held_frames import HeldFrames
from bluesky_jit.intake.ledger import Arrivals, Ledger
from bluesky_jit.intake.rows import FramesNotReady, Rows
from bluesky_jit.intake.troubles import Troubles
from bluesky_jit.messages import (
    Asset,
    AssetFrames,
    FrameKind,
    FrameMessage,
    InlineFrames,
    Problem,
    ProjectionBlock,
)
from bluesky_jit.settings_sections import IntakeSettings, TiledSettings

__all__ = [
    "EPICS_EPOCH_S",
    "FrameReader",
    "FramesNotReady",
    "RunFrames",
    "UnusableCounts",
    "as_counts",
    "part_of_message",
    "path_of",
    "split_message",
    "unix_times",
]

logger = logging.getLogger(__name__)

UNIQUE_ID_DATASET = "/entry/instrument/NDAttributes/NDArrayUniqueId"
"""Where areaDetector's file plugin puts the frame numbers, unless its layout was changed."""


class FrameReader(Protocol):
    """Turn a message about frames into the frames themselves."""

    def frames(self, message: FrameMessage) -> ProjectionBlock: ...


def _chosen(frames: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Return the frames to keep; nearly always that is all of them, and nothing is copied."""
    return frames if keep.all() else frames[keep]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frames:
    """What is known of n frames; counts: only those of the frames that are `fresh`, bool (n,), any type."""

    fresh: np.ndarray
    counts: np.ndarray
    unique_ids: np.ndarray | None
    times_s: np.ndarray | None
    angles_rad: np.ndarray | None


class RunFrames:
    """Read one run's frames, wherever they are, and keep the ledger of which ones came."""

    def __init__(
        self,
        run_uid: str = "",
        *,
        intake: IntakeSettings | None = None,
        tiled: TiledSettings | None = None,
        flats: Callable[[], str] = lambda: "this run",
        ended: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin a run; flats: says which flats are in use; ended: whether the run has; tiled: where rows are, too."""
        self.ledger = Ledger()
        self.troubles = Troubles(run_uid)
        self.last_arrivals: Arrivals | None = None
        self.frame_shape: tuple[int, int] | None = None
        """Of the first frame that could be used; others are refused."""
        self._flats = flats
        self._ended = ended
        self._clock = clock
        self._held = HeldFrames((intake or IntakeSettings()).queue_frames)
        self._refused: list[tuple[FrameKind, np.ndarray, np.ndarray | None]] = []
        """Kind, ids and times of tapped frames that found no room."""
        self._files: Rows = HDF5Rows()
        self._tiled = _tiled_rows(run_uid, tiled) if tiled is not None and tiled.uri else None

    def frames(self, message: FrameMessage) -> ProjectionBlock:
        """Return the message's frames that are new; raise FramesNotReady, or ValueError for what cannot be used."""
        if isinstance(message, AssetFrames):
            return self._block(message, self._from_file(message))
        if message.awaits_documents:
            self._held.put(message)
            return self._block(message, _nothing(message.counts.shape[1:]))
        return self._block(message, self._from_message(message))

    def refuse(
        self,
        kind: FrameKind,
        unique_ids: np.ndarray | None,
        n: int,
        times_s: np.ndarray | None,
        *,
        tapped: bool,
        awaits_documents: bool,
    ) -> None:
        """Enter n frames that came and found no room: they are lost, unless the run's records bring them."""
        if awaits_documents:
            self._held.taken += n
            return
        self.ledger.enter(kind, unique_ids, n, times_s, tapped=tapped, here=False)
        if tapped and unique_ids is not None:
            self._refused.append((kind, unique_ids, times_s))

    def end(self) -> list[Problem]:
        """Take note that no more frames will come; return what is to be told of those that did."""
        self.troubles.add_unplaced(self.ledger.unplaced(self._held.taken))
        self._held.clear()
        refused, self._refused = self._refused, []
        self.troubles.add_without_room(sum(int((~self.ledger.known(*each, tapped=True)).sum()) for each in refused))
        self.troubles.add_missing(self.ledger.finish())
        if self.ledger.backfilled:
            logger.info(
                "%d of %d frames of run %s did not come by PVA and were taken from its records",
                self.ledger.backfilled,
                self.ledger.received,
                self.troubles.run_uid,
            )
        return self.troubles.close()

    def are_closed(self, message: AssetFrames) -> bool:
        """Tell whether nobody writes to the message's files any more, but those that are made to be read meanwhile."""
        assets = (message.image, message.angle, message.unique_id, message.frame_time)
        uris = {asset.uri for asset in assets if asset is not None and not asset.swmr}
        return all(is_here(uri) and is_closed(path_of(uri)) for uri in uris)

    def close_files(self) -> None:
        """Close what was opened: a file that its writer opens once more would be read as it was before."""
        self._files.close()

    def close(self) -> None:
        self.close_files()
        if self._tiled is not None:
            self._tiled.close()

    # ── what is known of a message's frames ──────────────────────────────────────────────────────────────────────────

    def _from_message(self, message: InlineFrames) -> _Frames:
        n = len(message.counts)
        unique_ids, times_s = message.unique_ids, message.frame_times_s
        if not message.tapped and self.ledger.is_tapped(message.kind):
            if not message.numbered:
                self._tell_unnumbered(message)
                return _nothing(message.counts.shape[1:])
            # Events are stamped by another clock than frames; they come in order, so that their numbers will do.
            known = self.ledger.known(message.kind, unique_ids, None)
            times_s = np.where(known, np.nan, times_s)
            return _Frames(
                fresh=~known,
                counts=message.counts[~known],
                unique_ids=unique_ids,
                times_s=times_s,
                angles_rad=message.angles_rad,
            )
        return _Frames(
            fresh=np.ones(n, dtype=bool),
            counts=message.counts,
            unique_ids=unique_ids if message.numbered else None,
            times_s=times_s,
            angles_rad=message.angles_rad,
        )

    def _from_file(self, message: AssetFrames) -> _Frames:
        """Read who is who, and the pictures of those frames only that have not come by the tap."""
        kind, n = message.kind, message.image.count
        rows = self._rows_of(message.image)
        # Of all that may be missing yet, people know the pictures best.
        rows.read(message.image, np.zeros(n, dtype=bool))
        tapped = self.ledger.is_tapped(kind)
        unique_id = message.unique_id
        if unique_id is None and (tapped or self._held):
            unique_id = self._unannounced_ids(rows, message.image)
        if unique_id is None and tapped:
            self._tell_unnumbered(message)
            return _nothing(self.frame_shape or (1, 1))
        unique_ids = None if unique_id is None else _read(rows, unique_id).reshape(n).astype(np.int64)
        times = None if message.frame_time is None else _read(rows, message.frame_time).reshape(n)
        times_s = None if times is None else unix_times(times, message.document_time_s)
        angles = message.angles_rad
        if message.angle is not None:
            angles = _read(rows, message.angle).astype(np.float64).reshape(n) * message.angle_scale
        elif message.angle_track is not None and times_s is not None:
            angles = message.angle_track.at(times_s)
        fresh = np.ones(n, dtype=bool)
        held: dict[int, np.ndarray] = {}
        if unique_ids is not None:
            fresh = ~self.ledger.known(kind, unique_ids, times_s)
            held = self._held.find(unique_ids, times_s, fresh)
        wanted = fresh & ~np.isin(np.arange(n), list(held))
        counts = _merged(_read(rows, message.image, wanted), wanted, held, fresh)
        self._held.forget(held.values())
        return _Frames(fresh=fresh, counts=counts, unique_ids=unique_ids, times_s=times_s, angles_rad=angles)

    def _rows_of(self, image: Asset) -> Rows:
        """Return what reads an asset: its file where that is or may still come, or else Tiled."""
        if self._tiled is None or image.record is None:
            return self._files
        if is_here(image.uri):
            path = path_of(image.uri)
            # Whose folder is here is written here: to ask Tiled meanwhile would keep other frames waiting.
            if path.exists() or (path.parent.is_dir() and not self._ended()):
                return self._files
        return self._tiled

    def _unannounced_ids(self, rows: Rows, image: Asset) -> Asset | None:
        """Return the frame numbers that areaDetector puts into each file, told of or not."""
        ids = replace(image, dataset=UNIQUE_ID_DATASET, record=None)
        return ids if rows is self._files and rows.has(ids) else None

    def _tell_unnumbered(self, message: FrameMessage) -> None:
        self.troubles.once(
            Problem(
                text="the run's documents give no frame numbers, so that frames which PVA has lost cannot be told from "
                "others, and are left out: record NDArrayUniqueId, or set intake.pva to 'off'",
                severity="MAJOR",
                run_uid=message.run_uid,
            )
        )

    # ── the block of frames that are new and good ────────────────────────────────────────────────────────────────────

    def _block(self, message: FrameMessage, frames: _Frames) -> ProjectionBlock:
        """Enter frames in the ledger and make the block of those that are new."""
        n = len(frames.fresh)
        now = self._clock()
        angles = np.full(n, np.nan) if frames.angles_rad is None else frames.angles_rad
        counts, usable = self._usable(message, frames)
        without_angle = np.zeros(n, dtype=bool)
        if message.kind == "projection" and not self._awaits(message):
            without_angle = frames.fresh & usable & ~np.isfinite(angles)
            usable &= ~without_angle
        tapped = isinstance(message, InlineFrames) and message.tapped
        arrivals = self.ledger.enter(message.kind, frames.unique_ids, n, frames.times_s, tapped=tapped, usable=usable)
        self.last_arrivals = arrivals = replace(arrivals, without_angle=int(np.count_nonzero(without_angle)))
        self.troubles.add(arrivals, tapped=tapped)
        if without_angle.any():
            first = int(arrivals.acquisition[without_angle][0])
            text = f"projection {first} has no angle: give the angle's data key (settings: intake.angle_key); a "
            text += "monitored stage has one only between its samples"
            self.troubles.add_fault(UnusableCounts("no angle", text))
        keep = arrivals.keep
        ids = arrivals.acquisition if frames.unique_ids is None else frames.unique_ids
        times_s = np.full(n, now) if frames.times_s is None else np.where(np.isnan(frames.times_s), now, frames.times_s)
        return ProjectionBlock(
            run_uid=message.run_uid,
            kind=message.kind,
            counts=_chosen(counts, keep[frames.fresh]),
            acquisition=arrivals.acquisition[keep],
            unique_ids=np.asarray(ids, dtype=np.int64)[keep],
            frame_times_s=times_s[keep],
            received_times_s=np.full(n, now)[keep],
            angles_rad=angles[keep],
            angle_source=message.angle_source,
            flats=self._flats(),
            after=self._after(message, times_s[keep]),
        )

    def _usable(self, message: FrameMessage, frames: _Frames) -> tuple[np.ndarray, np.ndarray]:
        """Return the fresh frames as counts, and which of all n frames can be used."""
        usable = np.ones(len(frames.fresh), dtype=bool)
        shape = frames.counts.shape[1:]
        if not frames.fresh.any():
            return np.zeros((0, *(self.frame_shape or shape)), dtype=np.uint16), usable
        expected = self.frame_shape or shape
        if len(shape) != 2 or shape != expected:
            self.troubles.add_fault(_wrong_shape(shape, expected))
            usable[frames.fresh] = False
            return np.zeros((int(np.count_nonzero(frames.fresh)), *expected), dtype=np.uint16), usable
        counted = counted_frames(frames.counts, message.kind)
        for fault in counted.faults:
            self.troubles.add_fault(fault)
        usable[frames.fresh] = counted.usable
        if counted.usable.any():
            self.frame_shape = (shape[0], shape[1])
        return counted.counts, usable

    def _awaits(self, message: FrameMessage) -> bool:
        return isinstance(message, InlineFrames) and message.awaits_documents

    def _after(self, message: FrameMessage, times_s: np.ndarray) -> int | None:
        """Return how many projections had been taken before darks or flats that the tap missed."""
        if message.kind == "projection" or not len(times_s) or not self.ledger.tapped:
            return None
        return self.ledger.taken_before("projection", float(times_s[0]))


def _tiled_rows(run_uid: str, tiled: TiledSettings) -> Rows:
    # Tiled's client takes a second to import, and most sessions find their files here.
    from bluesky_jit.intake.tiled_rows import TiledRows

    return TiledRows(run_uid, tiled)


def _nothing(shape: tuple[int, ...]) -> _Frames:
    return _Frames(
        fresh=np.zeros(0, dtype=bool),
        counts=np.zeros((0, *shape), dtype=np.uint16),
        unique_ids=np.zeros(0, dtype=np.int64),
        times_s=None,
        angles_rad=None,
    )


def _read(rows: Rows, asset: Asset, wanted: np.ndarray | None = None) -> np.ndarray:
    """Return an asset's rows, or those that are wanted; whole seconds with their fractions."""
    values = rows.read(asset, wanted)
    if not asset.nanoseconds:
        return values
    fraction = rows.read(replace(asset, dataset=asset.nanoseconds, nanoseconds=""), wanted)
    return values.astype(np.float64) + fraction * 1e-9


def _merged(read: np.ndarray, wanted: np.ndarray, held: dict[int, np.ndarray], fresh: np.ndarray) -> np.ndarray:
    """Return the fresh frames in order: those that were read, and those that were held, by row."""
    if not held:
        return read
    places = dict(zip(np.flatnonzero(wanted).tolist(), read, strict=True)) | held
    return np.stack([places[row] for row in np.flatnonzero(fresh).tolist()])


def _wrong_shape(shape: tuple[int, ...], expected: tuple[int, ...]) -> UnusableCounts:
    text = "×".join(str(n) for n in shape) or "no"
    return UnusableCounts(
        "shape",
        f"frames of {text} pixels came in a run of {'×'.join(str(n) for n in expected)}: they were left out; do not "
        "change the detector's region in mid-run",
    )


def split_message(message: FrameMessage, most: int) -> Iterator[FrameMessage]:
    """Cut a message into pieces of at most `most` frames, so that a long sweep never fills the memory."""
    n = message.image.count if isinstance(message, AssetFrames) else len(message.counts)
    for first in range(0, n, most):
        yield part_of_message(message, first, min(most, n - first))


def part_of_message(message: FrameMessage, first: int, count: int) -> FrameMessage:
    """Return the message about `count` of its frames from `first` on."""
    rows = slice(first, first + count)
    angles = None if message.angles_rad is None else message.angles_rad[rows]
    if isinstance(message, InlineFrames):
        return replace(
            message,
            counts=message.counts[rows],
            unique_ids=message.unique_ids[rows],
            frame_times_s=message.frame_times_s[rows],
            angles_rad=angles,
        )

    def part(asset: Asset | None) -> Asset | None:
        return None if asset is None else asset.part(first, count)

    return replace(
        message,
        image=message.image.part(first, count),
        angle=part(message.angle),
        unique_id=part(message.unique_id),
        frame_time=part(message.frame_time),
        angles_rad=angles,
    )
