"""Tap, documents and files together: every frame is used once, with its own angle, and every trouble is counted."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bluesky_jit.intake.frames import RunFrames
from bluesky_jit.messages import Asset, AssetFrames, FrameMessage, InlineFrames

START_S = 1_790_000_000.0
PAUSE_S = 10.0
"""A detector's count is set anew between two series."""
PERIOD_S = 0.01
SHAPE = (2, 3)


@dataclass(frozen=True)
class Taken:
    """A frame that the detector has taken; serial: which one of all."""

    serial: int
    unique_id: int
    time_s: float

    @property
    def angle_rad(self) -> float:
        return 0.1 * self.serial

    def counts(self, *, damaged: bool = False) -> np.ndarray:
        return np.full((1, *SHAPE), np.nan if damaged else 1.0 + self.serial)


def tapped(frame: Taken, *, damaged: bool = False) -> InlineFrames:
    return InlineFrames(
        run_uid="r",
        kind="projection",
        counts=frame.counts(damaged=damaged),
        unique_ids=np.array([frame.unique_id]),
        frame_times_s=np.array([frame.time_s]),
        angles_rad=np.array([frame.angle_rad]),
        angle_source="frame attribute",
        tapped=True,
    )


def announced(path: Path, first: int, count: int) -> AssetFrames:
    def asset(name: str) -> Asset:
        return Asset(uri=path.as_uri(), dataset=name, first=first, count=count, swmr=False)

    return AssetFrames(
        run_uid="r",
        kind="projection",
        image=asset("image"),
        angle=asset("angle"),
        unique_id=asset("id"),
        frame_time=asset("time"),
        angle_scale=1.0,
        angles_rad=None,
        angle_source="same stream",
        document_time_s=START_S,
    )


def write(path: Path, rows: list[Taken], *, unreadable: set[int] | None = None) -> None:
    """Write rows; a picture that is unreadable makes whoever reads it fail."""
    pictures = np.array([frame.counts()[0] for frame in rows]).reshape(len(rows), *SHAPE).astype(np.uint16)
    with h5py.File(path, "w", locking=False) as file:
        image = file.create_dataset("image", data=pictures, chunks=(1, *SHAPE), compression="gzip")
        for row in unreadable or ():
            image.id.write_direct_chunk((row, 0, 0), b"not compressed")
        file["angle"] = np.array([frame.angle_rad for frame in rows])
        file["id"] = np.array([frame.unique_id for frame in rows], dtype=np.int64)
        file["time"] = np.array([frame.time_s for frame in rows])


@dataclass(frozen=True)
class Story:
    """What became of the frames: those that the detector kept, in the file's order, and what the tap brought."""

    taken: list[Taken]
    lost: set[int]
    rows: list[Taken]
    chunks: list[tuple[int, int]]
    taps: list[tuple[Taken, bool]]
    """In order of arrival; whether damaged."""
    order: list[bool]
    """Whose message is next: the tap's if true and it has one, else the documents'."""


@st.composite
def stories(draw: st.DrawFn) -> Story:
    taken: list[Taken] = []
    series: list[list[Taken]] = []
    for number, length in enumerate(draw(st.lists(st.integers(3, 8), min_size=1, max_size=3))):
        start_s = START_S + number * PAUSE_S
        frames = [Taken(serial=len(taken) + i, unique_id=1 + i, time_s=start_s + PERIOD_S * i) for i in range(length)]
        series.append(frames)
        taken += frames

    def some(frames: list[Taken], most: int) -> set[int]:
        if not frames:
            return set()
        return draw(st.sets(st.sampled_from([frame.serial for frame in frames]), max_size=most))

    # The first and the last of a series are there: whether others were taken before or after them nobody knows.
    lost = some([frame for frames in series for frame in frames[1:-1]], 3)
    kept = [frame for frame in taken if frame.serial not in lost]
    rows = [frame for frame in kept for _ in range(2 if frame.serial in some([frame], 1) else 1)]
    chunks, row = [], 0
    while row < len(rows):
        count = draw(st.integers(1, 6))
        chunks.append((row, min(count, len(rows) - row)))
        row += count
    taps: list[tuple[Taken, bool]] = []
    for frames in series:
        # The first frame of a new count shows that it is one; in a single series anything may be missing.
        first = frames[:1] if len(series) > 1 else []
        arriving = [frame for frame in frames[len(first) :] if frame.serial not in lost]
        arriving = [frame for frame in arriving if frame.serial not in some(arriving, 6)]
        copies = [frame for frame in arriving for _ in range(draw(st.sampled_from([1, 1, 1, 2])))]
        # A later one overtakes those before it.
        for place in draw(st.lists(st.integers(0, max(len(copies) - 1, 0)), max_size=3)):
            copies[place : place + 3] = reversed(copies[place : place + 3])
        damaged = some(arriving, 2)
        taps += [(frame, frame.serial in damaged) for frame in (*first, *copies)]
    order = draw(st.lists(st.booleans(), min_size=len(taps) + len(chunks), max_size=len(taps) + len(chunks)))
    return Story(taken=taken, lost=lost, rows=rows, chunks=chunks, taps=taps, order=order)


def play(story: Story, path: Path) -> tuple[RunFrames, dict[int, float], list[int]]:
    """Return what read the frames, the angle of each one that was used, by serial, and their acquisition numbers."""
    run = RunFrames("r")
    taps = [tapped(frame, damaged=damaged) for frame, damaged in story.taps]
    chunks: list[FrameMessage] = [announced(path, first, count) for first, count in story.chunks]
    used: dict[int, float] = {}
    numbers: list[int] = []
    for is_tap in [*story.order, *([True] * (len(taps) + len(chunks)))]:
        if not (taps or chunks):
            break
        message = taps.pop(0) if taps and (is_tap or not chunks) else chunks.pop(0)
        block = run.frames(message)
        numbers += block.acquisition.tolist()
        for counts, angle in zip(block.counts, block.angles_rad, strict=True):
            serial = int(counts[0, 0]) - 1
            assert serial not in used
            used[serial] = float(angle)
    run.close()
    return run, used, numbers


@settings(max_examples=40)
@given(story=stories())
def test_every_frame_is_used_once_with_its_own_angle_and_counts_are_exact(story: Story) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.h5"
        write(path, story.rows)
        run, used, numbers = play(story, path)
    run.end()
    kept = {frame.serial: frame for frame in story.rows}
    assert used == {serial: frame.angle_rad for serial, frame in kept.items()}
    assert len(set(numbers)) == len(numbers) == len(kept)
    good = {frame.serial for frame, damaged in story.taps if not damaged}
    by_tap, by_file = Counter(frame.serial for frame, _ in story.taps), Counter(frame.serial for frame in story.rows)
    repeats = {serial: max(by_tap[serial], by_file[serial]) - 1 for serial in kept}
    damaged = {frame.serial for frame, damaged in story.taps if damaged}
    ledger = run.ledger
    assert (ledger.received, ledger.lost, ledger.missing) == (len(kept), len(story.lost), len(story.lost))
    assert ledger.tapped == len(by_tap)
    assert ledger.backfilled == (len(kept) - len(good) if by_tap else 0)
    assert ledger.corrupt == len(damaged)
    assert ledger.duplicates == sum(repeats.values())


@settings(max_examples=20)
@given(missed=st.sets(st.integers(0, 11), max_size=6))
def test_pictures_that_the_tap_brought_are_not_read_from_the_file(missed: set[int]) -> None:
    frames = [Taken(serial=n, unique_id=40 + n, time_s=START_S + PERIOD_S * n) for n in range(12)]
    run, used = RunFrames("r"), {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.h5"
        write(path, frames, unreadable=set(range(12)) - missed)
        messages: list[FrameMessage] = [tapped(frame) for frame in frames if frame.serial not in missed]
        for message in [*messages, announced(path, 0, 12)]:
            block = run.frames(message)
            used |= dict(zip(block.counts[:, 0, 0].tolist(), block.angles_rad.tolist(), strict=True))
        run.close()
    assert used == {1 + frame.serial: frame.angle_rad for frame in frames}
