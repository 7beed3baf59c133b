"""Find the runs that Tiled has recorded, and which of their frames are what."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from bluesky_jit.archive import address, answering, connect_now, find_run, raw_catalog
from bluesky_jit.intake.dialects import (
    StreamKeys,
    asked_angle_key,
    even_steps_rad,
    read_monitor,
    read_stream,
    tells_tomography,
    tomo_of,
)
from bluesky_jit.intake.foreign_plans import borrowed
from bluesky_jit.intake.frames import unix_times
from bluesky_jit.intake.ledger import Ledger
from bluesky_jit.intake.recorded_frames import RecordedFrames, RecordedScan
from bluesky_jit.messages import AngleTrack, FrameKind
from bluesky_jit.settings import Settings

logger = logging.getLogger(__name__)


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
    tomo = tomo_of(start, settings)
    if tomo is None and any(tells_tomography(descriptor) for descriptor in _descriptors(run)):
        tomo = borrowed(start)
    if tomo is None:
        raise ValueError(
            f"{called} is no tomography run: its start document has no `tomo` block, which says how to reconstruct, "
            "and neither its plan nor its streams are known; name such plans in intake.plans"
        )
    if assumed := tomo.pop("assumed", ""):
        logger.warning("%s: %s", called, assumed)
    if run.metadata.get("stop") is None:
        logger.warning("%s has no end: it still goes on, or was broken off; what is recorded is taken", called)
    frames = _streams(run, called, settings, tomo)
    if not len(frames.get("projection", ())):
        raise ValueError(f"{called} has no projections: its streams are {', '.join(sorted(run)) or 'none'}")
    frames["projection"] = _with_angles(run, frames["projection"], tomo, called, settings)
    frames = _with_order(frames)
    lender = tomo.get("dark_flat_uid")
    if lender and not {"dark", "flat"} <= frames.keys():
        frames = _lent(catalog, str(lender), called, settings, frames["projection"].keys.frame_shape) | frames
    per_turn = tomo.get("n_angles_per_rotation") or settings.tomo.angles_per_turn
    return RecordedScan(uid=start["uid"], place=place, tomo=tomo, frames=frames, angles_per_turn=per_turn)


def _descriptors(run: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the first descriptor of each stream, with the stream's name."""
    for name in run:
        descriptors = getattr(run[name], "descriptors", ())
        if descriptors:
            yield {**descriptors[0], "name": name}


def _streams(run: Any, called: str, settings: Settings, tomo: Mapping[str, Any]) -> dict[FrameKind, RecordedFrames]:
    """Return the frames of each stream that has any, without their angles."""
    found: dict[FrameKind, RecordedFrames] = {}
    start = run.metadata["start"]
    for descriptor in _descriptors(run):
        name = descriptor["name"]
        stream = run[name]
        keys = read_stream(descriptor, tomo, start, settings.intake)
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
    arrivals = Ledger().enter(keys.kind, unique_ids, n, times_s)
    frames = RecordedFrames(
        keys=keys,
        stream=stream,
        image=image,
        rows=np.arange(n),
        unique_ids=unique_ids,
        numbers=arrivals.acquisition,
        times_s=times_s,
        angles_rad=np.full(n, np.nan),
        after=np.zeros(n, dtype=np.int64),
    )
    # A frame that was recorded twice counts once, as it does live.
    return frames.only(arrivals.keep)


def _with_angles(
    run: Any, frames: RecordedFrames, tomo: Mapping[str, Any], called: str, settings: Settings
) -> RecordedFrames:
    """Return projections with their angles; raise ValueError when those cannot be known."""
    keys, stream = frames.keys, frames.stream
    if not keys.angle and (track := _monitored(run, tomo, settings)) is not None:
        # Those that the stage's samples do not reach cannot be placed.
        angles = track.at(frames.times_s)
        placed = np.isfinite(angles)
        if not placed.all():
            logger.warning("%s: %d projections lie outside the stage's samples: left out", called, np.sum(~placed))
        return replace(frames.only(placed), angles_rad=angles[placed], angle_source="monitored stream")
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
        sweep = keys.frames_per_row if keys.frames_per_row > 1 else None
        angles = even_steps_rad(tomo, settings.tomo.angles_per_turn, 0, n, sweep=sweep)
        logger.warning("%s records no angle: even steps are taken, from 0 on", called)
    angles = angles[frames.rows]
    if not np.isfinite(angles).all():
        lost = int(np.count_nonzero(~np.isfinite(angles)))
        raise ValueError(
            f"{called} has {lost} angles in {keys.angle!r} that are no numbers: give another key in intake.angle_key"
        )
    return replace(frames, angles_rad=angles)


def _monitored(run: Any, tomo: Mapping[str, Any], settings: Settings) -> AngleTrack | None:
    """Return the angles of a stage that was monitored during the run, or None."""
    start = run.metadata["start"]
    for descriptor in _descriptors(run):
        found = read_monitor(descriptor, tomo, start, settings.intake)
        if found is None:
            continue
        key, scale = found
        stream = run[descriptor["name"]]
        times = f"ts_{key}" if f"ts_{key}" in set(stream) else "time"
        times_s, angles = (np.asarray(stream[name].read(), dtype=np.float64).ravel() for name in (times, key))
        order = np.argsort(times_s)
        return AngleTrack(
            times_s=times_s[order], angles_rad=angles[order] * scale, delay_s=settings.intake.monitor_delay_s
        )
    return None


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
    for kind, frames in _with_order(_streams(run, f"run {uid[:8]}", settings, {})).items():
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
