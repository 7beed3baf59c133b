"""Read the runs that Tiled has recorded, wherever its server keeps their frames."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bluesky_jit.archive import address, answering, connect_now, find_run, raw_catalog
from bluesky_jit.intake.angle_unit import AngleUnit
from bluesky_jit.intake.dialects import StreamKeys, asked_angle_key, even_steps_rad, is_tomography, read_stream
from bluesky_jit.intake.frames import as_counts, unix_times
from bluesky_jit.intake.ledger import Ledger
from bluesky_jit.intake.sources import KINDS, taken_together
from bluesky_jit.messages import FrameKind, ProjectionBlock
from bluesky_jit.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFrames:
    """Point at the frames of one stream that count, in the order in which they were taken.

    stream, image: Tiled's clients of it, and of its array (rows, …, n_v, n_u); rows: which of its frames, (n,), and for
    each of them the unique id, the time stamp in Unix seconds (NaN when unknown), the angle (NaN for darks and flats)
    and, after, how many projections had been taken before it.
    """

    keys: StreamKeys
    stream: Any
    image: Any
    rows: np.ndarray
    unique_ids: np.ndarray
    times_s: np.ndarray
    angles_rad: np.ndarray
    after: np.ndarray
    flats: str = "this run"

    def __len__(self) -> int:
        return len(self.rows)

    def counts(self, first: int, end: int) -> np.ndarray:
        """Fetch frames first to end, uint16 (n, n_v, n_u)."""
        rows = self.rows[first:end]
        # Some detectors record several frames an event.
        per_row = int(np.prod(self.image.shape[1:-2], dtype=np.int64))
        start, stop = int(rows[0]) // per_row, int(rows[-1]) // per_row + 1
        frames = np.asarray(self.image[start:stop]).reshape(-1, *self.keys.frame_shape)
        return as_counts(frames[rows - start * per_row], self.keys.kind)

    def only(self, chosen: np.ndarray) -> RecordedFrames:
        """Return some of the frames."""
        columns = ("rows", "unique_ids", "times_s", "angles_rad", "after")
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
    def n_projections(self) -> int:
        return len(self.frames["projection"])

    @property
    def angles_rad(self) -> np.ndarray:
        return self.frames["projection"].angles_rad

    @property
    def frame_shape(self) -> tuple[int, int]:
        return self.frames["projection"].keys.frame_shape

    def blocks(self, *, size: int = 64, kinds: tuple[FrameKind, ...] = KINDS) -> Iterator[ProjectionBlock]:
        """Yield all darks, all flats and then projections, in blocks of at most `size` frames taken together.

        Projections are numbered as they were recorded, without gaps for those that were lost.
        """
        unit = AngleUnit(self.angles_per_turn, _scan_mode(self.tomo)) if self.angles_per_turn else None
        for kind in kinds:
            frames = self.frames.get(kind)
            if frames is None:
                continue
            for first, end in taken_together(frames.after, len(frames)):
                for start in range(first, end, size):
                    block = self._block(frames, start, min(start + size, end))
                    if unit is not None:
                        unit.check(block)
                    yield block

    def _block(self, frames: RecordedFrames, first: int, end: int) -> ProjectionBlock:
        kind = frames.keys.kind
        with answering(self.place):
            counts = frames.counts(first, end)
        return ProjectionBlock(
            run_uid=self.uid,
            kind=kind,
            counts=counts,
            acquisition=np.arange(first, end),
            unique_ids=frames.unique_ids[first:end],
            frame_times_s=frames.times_s[first:end],
            received_times_s=np.full(end - first, np.nan),
            angles_rad=frames.angles_rad[first:end],
            angle_source=frames.keys.angle_source,
            flats=frames.flats,
            after=None if kind == "projection" else int(frames.after[first]),
        )


@contextmanager
def recorded_scan(which: str, settings: Settings) -> Iterator[RecordedScan]:
    """Find a run by its uid, the beginning of it, its scan id, or -1 for the last, and stay connected to read it.

    Darks and flats that it has not taken are those of the run that its `dark_flat_uid` names. Raises ValueError for
    what cannot be reconstructed, OSError when Tiled cannot be reached.
    """
    place = address(settings.tiled.uri)
    client = connect_now(settings.tiled)
    try:
        with answering(place):
            scan = _scan(raw_catalog(client), which, place, settings)
        yield scan
    finally:
        client.context.close()


def _scan(catalog: Any, which: str, place: str, settings: Settings) -> RecordedScan:
    run = find_run(catalog, which, place)
    start = run.metadata["start"]
    called = f"run {start['uid'][:8]}"
    if not is_tomography(start):
        raise ValueError(
            f"{called} is no tomography run: its start document has no `tomo` block, which says how to reconstruct"
        )
    if run.metadata.get("stop") is None:
        logger.warning("%s has no end: it still goes on, or was broken off; what is recorded is taken", called)
    tomo = start["tomo"]
    frames = _with_order(_streams(run, called, settings))
    if not len(frames.get("projection", ())):
        raise ValueError(f"{called} has no projections: its streams are {', '.join(sorted(run)) or 'none'}")
    frames["projection"] = _with_angles(frames["projection"], tomo, called, settings)
    lender = tomo.get("dark_flat_uid")
    if lender and not {"dark", "flat"} <= frames.keys():
        frames = _lent(catalog, str(lender), called, settings, frames["projection"].keys.frame_shape) | frames
    per_turn = tomo.get("n_angles_per_rotation") or settings.tomo.angles_per_turn
    return RecordedScan(uid=start["uid"], place=place, tomo=tomo, frames=frames, angles_per_turn=per_turn)


def _streams(run: Any, called: str, settings: Settings) -> dict[FrameKind, RecordedFrames]:
    """Return the frames of each stream that has any, without their angles."""
    found: dict[FrameKind, RecordedFrames] = {}
    start = run.metadata["start"]
    tomo = start.get("tomo") or {}
    for name in run:
        stream = run[name]
        descriptors = getattr(stream, "descriptors", ())
        if not descriptors:
            continue
        keys = read_stream({**descriptors[0], "name": name}, tomo, start, settings.intake)
        columns = set(stream)
        if keys is None or keys.image not in columns:
            continue
        if keys.kind in found:
            raise ValueError(f"{called} has two streams of {keys.kind}s, {name!r} one of them: only one can be read")
        found[keys.kind] = _frames(keys, stream, columns, float(start["time"]))
    return found


def _frames(keys: StreamKeys, stream: Any, columns: set[str], near_s: float) -> RecordedFrames:
    """Read who is who in a stream; the pictures stay where they are."""
    image = stream[keys.image]
    n = int(np.prod(image.shape[:-2], dtype=np.int64))
    ids = _column(stream, keys.unique_id, n) if keys.unique_id in columns else None
    # Frames in events were taken when those were.
    times_of = (keys.frame_time, f"ts_{keys.image}", "time")
    times = next((_column(stream, key, n) for key in times_of if key in columns), None)
    times_s = np.full(n, np.nan) if times is None else unix_times(times, near_s)
    unique_ids = np.arange(n) if ids is None else ids.astype(np.int64)
    frames = RecordedFrames(
        keys=keys,
        stream=stream,
        image=image,
        rows=np.arange(n),
        unique_ids=unique_ids,
        times_s=times_s,
        angles_rad=np.full(n, np.nan),
        after=np.zeros(n, dtype=np.int64),
    )
    # A frame that was recorded twice counts once, as it does live.
    return frames.only(Ledger().enter(keys.kind, unique_ids, n, times_s).keep)


def _with_angles(frames: RecordedFrames, tomo: Mapping[str, Any], called: str, settings: Settings) -> RecordedFrames:
    """Return projections with their angles; raise ValueError when those cannot be known."""
    keys, stream = frames.keys, frames.stream
    asked = asked_angle_key(tomo, settings.intake)
    if asked and not keys.angle:
        raise ValueError(
            f"angle key {asked!r} is not among the projections of {called}, which have {', '.join(sorted(stream))}: "
            "correct intake.angle_key"
        )
    n = int(np.prod(frames.image.shape[:-2], dtype=np.int64))
    if keys.angle:
        angles = _column(stream, keys.angle, n).astype(np.float64) * keys.angle_scale
    else:
        angles = even_steps_rad(tomo, settings.tomo.angles_per_turn, 0, n)
        logger.warning("%s records no angle: even steps are taken, from 0 on", called)
    angles = angles[frames.rows]
    if not np.isfinite(angles).all():
        lost = int(np.count_nonzero(~np.isfinite(angles)))
        raise ValueError(
            f"{called} has {lost} angles in {keys.angle!r} that are no numbers: give another key in intake.angle_key"
        )
    return replace(frames, angles_rad=angles)


def _column(stream: Any, key: str, n: int) -> np.ndarray:
    """Return one value a frame, (n,), of a column that may have one for several frames."""
    values = np.asarray(stream[key].read()).ravel()
    if len(values) == 0 or n % len(values):
        raise ValueError(f"the stream has {n} frames and {len(values)} values of {key}: they must be as many")
    return np.repeat(values, n // len(values))


def _with_order(frames: dict[FrameKind, RecordedFrames]) -> dict[FrameKind, RecordedFrames]:
    """Return the frames with how many projections were taken before each, as their time stamps say."""
    if "projection" not in frames:
        return frames
    taken_s = frames["projection"].times_s
    return {
        kind: each
        if kind == "projection" or not (np.isfinite(taken_s).all() and np.isfinite(each.times_s).all())
        else replace(each, after=np.searchsorted(taken_s, each.times_s))
        for kind, each in frames.items()
    }


def _lent(
    catalog: Any, uid: str, called: str, settings: Settings, frame_shape: tuple[int, int]
) -> dict[FrameKind, RecordedFrames]:
    """Return the darks and the last flats of another run, as if they had been taken before this one began."""
    try:
        run = catalog[uid]
    except LookupError:
        raise ValueError(
            f"{called} wants the darks and flats of run {uid[:8]}, which this Tiled does not have: record that run "
            "there too"
        ) from None
    lent: dict[FrameKind, RecordedFrames] = {}
    for kind, frames in _with_order(_streams(run, f"run {uid[:8]}", settings)).items():
        if kind == "projection" or not len(frames):
            continue
        if frames.keys.frame_shape != frame_shape:
            raise ValueError(
                f"the {kind}s of run {uid[:8]} have {frames.keys.frame_shape} pixels and the frames of {called} "
                f"{frame_shape}: they cannot be borrowed"
            )
        last = frames.after == frames.after[-1] if kind == "flat" else np.ones(len(frames), dtype=bool)
        kept = frames.only(last)
        lent[kind] = replace(kept, after=np.zeros_like(kept.after), flats=f"run {uid}")
    return lent


def _scan_mode(tomo: Mapping[str, Any]) -> str:
    return str(tomo.get("scan_mode") or "sequential")
