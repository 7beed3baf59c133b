"""From messages about frames to frames: the FrameReader seam, with readers for frames in events and in HDF5 files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlparse

import h5py
import numpy as np

from bluesky_jit.intake.ledger import Arrivals, Ledger
from bluesky_jit.messages import Asset, AssetFrames, FrameKind, FrameMessage, InlineFrames, ProjectionBlock

EPICS_EPOCH_S = 631_152_000.0
"""1990-01-01 in seconds since the Unix epoch: areaDetector counts its time stamps from there."""

MOST_COUNTS = int(np.iinfo(np.uint16).max)
"""What the window keeps of raw data."""
LEAST_RAW = 2.0
"""Real numbers that all lie below this, and are not whole, are transmissions, noise included: no detector's counts."""


class FramesNotReady(Exception):
    """Say that a file does not hold all the rows yet; `available` of them can be read."""

    def __init__(self, text: str, available: int = 0) -> None:
        super().__init__(text)
        self.available = available


class UnusableCounts(ValueError):
    """Say what is wrong with the counts of frames; `reason` is the same for all frames with the same fault."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class FrameReader(Protocol):
    """Turn a message about frames into the frames themselves."""

    def frames(self, message: FrameMessage) -> ProjectionBlock: ...


class RunFrames:
    """Read one run's frames, wherever they are, and keep the ledger of which ones came."""

    def __init__(
        self, *, flats: Callable[[], str] = lambda: "this run", clock: Callable[[], float] = time.time
    ) -> None:
        """Begin a run; flats: says which flats are in use."""
        self.ledger = Ledger()
        self.last_arrivals: Arrivals | None = None
        self._flats = flats
        self._clock = clock
        self._inline = InlineReader(self)
        self._files = HDF5Reader(self)

    def frames(self, message: FrameMessage) -> ProjectionBlock:
        """Return the message's frames; raise FramesNotReady, or ValueError for frames that cannot be used."""
        reader: FrameReader = self._inline if isinstance(message, InlineFrames) else self._files
        return reader.frames(message)

    def close(self) -> None:
        self._files.close()

    def block(
        self,
        message: FrameMessage,
        counts: np.ndarray,
        *,
        unique_ids: np.ndarray | None,
        frame_times_s: np.ndarray | None,
        angles_rad: np.ndarray | None,
    ) -> ProjectionBlock:
        """Enter frames in the ledger and make the block of those that are new."""
        n = len(counts)
        now = self._clock()
        counts = as_counts(counts, message.kind)
        arrivals = self.ledger.enter(message.kind, unique_ids, n, frame_times_s)
        self.last_arrivals = arrivals
        keep = arrivals.keep
        ids = arrivals.acquisition if unique_ids is None else np.asarray(unique_ids, dtype=np.int64)
        return ProjectionBlock(
            run_uid=message.run_uid,
            kind=message.kind,
            counts=counts[keep],
            acquisition=arrivals.acquisition[keep],
            unique_ids=ids[keep],
            frame_times_s=(np.full(n, now) if frame_times_s is None else frame_times_s)[keep],
            received_times_s=np.full(n, now)[keep],
            angles_rad=(np.full(n, np.nan) if angles_rad is None else angles_rad)[keep],
            angle_source=message.angle_source,
            flats=self._flats(),
        )


def as_counts(frames: np.ndarray, kind: FrameKind = "projection") -> np.ndarray:
    """Return frames (n, n_v, n_u) as uint16, rounded; raise UnusableCounts for what would not survive that."""
    if frames.dtype == np.uint16:
        return frames
    if frames.dtype.kind not in "buif":
        raise UnusableCounts("type", f"frames are of type {frames.dtype}: let the detector write integer counts")
    if not frames.size:
        return frames.astype(np.uint16)
    is_real = frames.dtype.kind == "f"
    if is_real:
        _require("not finite", np.isfinite(frames), frames, "let the detector write raw counts")
    _require("negative", frames >= 0, frames, "let the detector write raw counts, and not subtract darks")
    _require("too large", frames <= MOST_COUNTS, frames, f"let the detector scale its counts to at most {MOST_COUNTS}")
    if is_real and kind != "dark" and frames.max() < LEAST_RAW and (frames != np.rint(frames)).any():
        raise UnusableCounts(
            "normalised",
            f"frames hold fractions of up to {frames.max():.3g}, as if flats had been applied: they were left out; let "
            "the detector write raw counts",
        )
    return (np.rint(frames) if is_real else frames).astype(np.uint16)


def _require(reason: str, fits: np.ndarray, frames: np.ndarray, remedy: str) -> None:
    """Raise UnusableCounts that names the first count that does not fit."""
    if fits.all():
        return
    first = np.argwhere(~fits)[0]
    raise UnusableCounts(
        reason,
        f"a frame holds {frames[tuple(first)]} counts at row {first[-2]}, column {first[-1]} ({reason}): it was left "
        f"out, and so are all frames like it; {remedy}",
    )


class InlineReader:
    """Read frames that came inside events."""

    def __init__(self, run: RunFrames) -> None:
        self._run = run

    def frames(self, message: FrameMessage) -> ProjectionBlock:
        if not isinstance(message, InlineFrames):
            raise TypeError(f"frames in events were expected, not {type(message).__name__}")
        return self._run.block(
            message,
            message.counts,
            unique_ids=message.unique_ids,
            frame_times_s=message.frame_times_s,
            angles_rad=message.angles_rad,
        )


class HDF5Reader:
    """Read frames from HDF5 files, also while they grow (SWMR); files stay open between messages."""

    def __init__(self, run: RunFrames) -> None:
        self._run = run
        self._open: dict[str, h5py.File] = {}

    def frames(self, message: FrameMessage) -> ProjectionBlock:
        if not isinstance(message, AssetFrames):
            raise TypeError(f"frames in a file were expected, not {type(message).__name__}")
        counts = self._rows(message.image)
        unique_ids = self._rows(message.unique_id) if message.unique_id else None
        times = self._rows(message.frame_time) if message.frame_time else None
        angles = message.angles_rad
        if message.angle:
            angles = self._rows(message.angle).astype(np.float64).reshape(len(counts)) * message.angle_scale
        return self._run.block(
            message,
            counts,
            unique_ids=unique_ids,
            frame_times_s=None if times is None else unix_times(times.reshape(len(counts)), message.document_time_s),
            angles_rad=angles,
        )

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def _rows(self, asset: Asset) -> np.ndarray:
        dataset = self._dataset(asset)
        last = asset.first + asset.count
        try:
            if dataset.shape[0] < last:
                dataset.refresh()
            available = int(dataset.shape[0]) - asset.first
            rows = dataset[asset.first : last] if available >= asset.count else None
        except (OSError, RuntimeError, KeyError) as error:
            # h5py raises any of them for a file whose writer ended in the middle of a write.
            self._forget(asset)
            raise FramesNotReady(f"{path_of(asset.uri)} cannot be read: {error}") from error
        if rows is None:
            # A file opened before its writer turned SWMR on shows its new rows only when it is opened again.
            self._forget(asset)
            raise FramesNotReady(
                f"{asset.dataset} of {asset.uri} has {max(available, 0)} of {asset.count} rows from {asset.first} on",
                available=max(available, 0),
            )
        return rows

    def _dataset(self, asset: Asset) -> h5py.Dataset:
        path = path_of(asset.uri)
        if asset.uri not in self._open:
            try:
                self._open[asset.uri] = h5py.File(path, "r", swmr=asset.swmr, locking=False)
            except OSError as error:
                raise FramesNotReady(f"{path} cannot be opened yet: {error}") from error
        dataset = self._open[asset.uri].get(asset.dataset)
        if not isinstance(dataset, h5py.Dataset):
            self._forget(asset)
            raise FramesNotReady(f"{path} has no dataset {asset.dataset}")
        return dataset

    def _forget(self, asset: Asset) -> None:
        file = self._open.pop(asset.uri, None)
        if file is not None:
            file.close()


def path_of(uri: str) -> Path:
    """Return the local path of a file URI."""
    parts = urlparse(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise ValueError(f"frames are at {uri}: only files on this machine (file://localhost/…) can be read")
    return Path(unquote(parts.path))


def unix_times(times: np.ndarray, near_s: float) -> np.ndarray:
    """Return time stamps as seconds since the Unix epoch; areaDetector's own count from 1990.

    near_s: a time of the same run, which tells the two epochs apart.
    """
    times = np.asarray(times, dtype=np.float64)
    if times.size and abs(times[0] + EPICS_EPOCH_S - near_s) < abs(times[0] - near_s):
        return times + EPICS_EPOCH_S
    return times


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
        return None if asset is None else replace(asset, first=asset.first + first, count=count)

    return replace(
        message,
        image=replace(message.image, first=message.image.first + first, count=count),
        angle=part(message.angle),
        unique_id=part(message.unique_id),
        frame_time=part(message.frame_time),
        angles_rad=angles,
    )
