"""Readers: frames from events and from real HDF5 files, also while they grow."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from bluesky_jit.intake.frames import (
    EPICS_EPOCH_S,
    FramesNotReady,
    RunFrames,
    UnusableCounts,
    as_counts,
    path_of,
    split_message,
    unix_times,
)
from bluesky_jit.messages import AngleTrack, Asset, AssetFrames, InlineFrames

NOW_S = 1_790_000_000.0


def inline(counts: np.ndarray, first_id: int = 0) -> InlineFrames:
    n = len(counts)
    return InlineFrames(
        run_uid="r",
        kind="projection",
        counts=counts,
        unique_ids=np.arange(first_id, first_id + n),
        frame_times_s=np.full(n, NOW_S),
        angles_rad=np.linspace(0, 1, n),
        angle_source="same stream",
    )


def filed(path: Path, first: int, count: int, *, swmr: bool = True, dataset: str = "/entry/data/data") -> AssetFrames:
    def asset(name: str) -> Asset:
        return Asset(uri=f"file://localhost{path}", dataset=name, first=first, count=count, swmr=swmr)

    return AssetFrames(
        run_uid="r",
        kind="projection",
        image=asset(dataset),
        angle=asset("/angle"),
        unique_id=asset("/id"),
        frame_time=asset("/time"),
        angle_scale=np.pi / 180,
        angles_rad=None,
        angle_source="same stream",
        document_time_s=NOW_S,
    )


class Writer:
    """Write frames as a file plugin does: one at a time, with SWMR."""

    def __init__(self, path: Path) -> None:
        self.file = h5py.File(path, "w", libver="latest", locking=False)
        self.data = self.file.create_dataset(
            "/entry/data/data", (0, 4, 6), maxshape=(None, 4, 6), chunks=(1, 4, 6), dtype="u2"
        )
        self.columns = {
            name: self.file.create_dataset(name, (0,), maxshape=(None,), dtype=dtype, chunks=(16,))
            for name, dtype in (("/angle", "f8"), ("/id", "i8"), ("/time", "f8"))
        }
        self.file.swmr_mode = True

    def write(self, value: int) -> None:
        n = len(self.data)
        self.data.resize(n + 1, axis=0)
        self.data[n] = value
        for name, number in (("/angle", 3.0 * n), ("/id", 100 + n), ("/time", NOW_S - EPICS_EPOCH_S + n)):
            self.columns[name].resize(n + 1, axis=0)
            self.columns[name][n] = number
        self.data.flush()
        for column in self.columns.values():
            column.flush()


@pytest.fixture
def run() -> Iterator[RunFrames]:
    frames = RunFrames(clock=lambda: NOW_S)
    yield frames
    frames.close()


def test_a_growing_file_is_read_row_by_row(tmp_path: Path, run: RunFrames) -> None:
    path = tmp_path / "frames.h5"
    writer = Writer(path)
    writer.write(1)
    writer.write(2)
    block = run.frames(filed(path, 0, 2))
    assert block.counts[:, 0, 0].tolist() == [1, 2]
    assert block.angles_rad == pytest.approx(np.deg2rad([0, 3]))
    assert block.unique_ids.tolist() == [100, 101]
    assert block.acquisition.tolist() == [0, 1]
    assert block.frame_times_s.tolist() == [NOW_S, NOW_S + 1]
    with pytest.raises(FramesNotReady) as early:
        run.frames(filed(path, 2, 2))
    assert early.value.available == 0
    writer.write(3)
    with pytest.raises(FramesNotReady) as half:
        run.frames(filed(path, 2, 2))
    assert half.value.available == 1
    writer.write(4)
    assert run.frames(filed(path, 2, 2)).counts[:, 0, 0].tolist() == [3, 4]
    writer.file.close()


def test_a_file_that_does_not_exist_yet_is_not_ready(tmp_path: Path, run: RunFrames) -> None:
    with pytest.raises(FramesNotReady, match="cannot be opened yet"):
        run.frames(filed(tmp_path / "later.h5", 0, 1))


def test_a_file_without_the_dataset_is_not_ready(tmp_path: Path, run: RunFrames) -> None:
    path = tmp_path / "frames.h5"
    writer = Writer(path)
    with pytest.raises(FramesNotReady, match="no dataset /nothing"):
        run.frames(filed(path, 0, 1, dataset="/nothing"))
    writer.file.close()


def test_a_path_with_spaces_is_found(tmp_path: Path) -> None:
    assert path_of("file://localhost/data/run%201/f.h5") == Path("/data/run 1/f.h5")


@pytest.mark.parametrize("uri", ["http://localhost/f.h5", "file://elsewhere/f.h5"])
def test_files_elsewhere_are_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="only files on this machine"):
        path_of(uri)


def test_areadetector_times_are_told_from_unix_times() -> None:
    assert unix_times(np.array([NOW_S - EPICS_EPOCH_S]), NOW_S + 60).tolist() == [NOW_S]
    assert unix_times(np.array([NOW_S]), NOW_S + 60).tolist() == [NOW_S]


def test_repeated_frames_are_left_out(run: RunFrames) -> None:
    run.frames(inline(np.zeros((2, 4, 6), dtype=np.uint16), first_id=5))
    again = run.frames(inline(np.ones((2, 4, 6), dtype=np.uint16), first_id=6))
    assert again.unique_ids.tolist() == [7]
    assert run.ledger.received == 3


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (
            np.array([[[np.nan, 1.0]]]),
            r"nan counts at row 0, column 0 \(not finite\).*let the detector write raw counts",
        ),
        (np.array([[[1.0, np.inf]]]), r"inf counts at row 0, column 1"),
        (
            np.array([[[5, 1], [1, -1]]], dtype=np.int16),
            r"-1 counts at row 1, column 1 \(negative\).*not subtract darks",
        ),
        (np.array([[[-0.25, 1.0]]]), r"-0.25 counts"),
        (np.array([[[0.25, 1.01]]]), r"fractions of up to 1.01, as if flats had been applied"),
        (np.array([[[1j]]]), "of type complex128"),
        (np.array([[[70000, 1]]]), r"70000 counts at row 0, column 0 \(too large\).*at most 65535"),
    ],
)
def test_counts_that_would_not_survive_are_refused(frame: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        as_counts(frame)


def test_whole_numbers_of_other_types_become_counts() -> None:
    assert as_counts(np.array([[[0.0, 65535.0]]])).tolist() == [[[0, 65535]]]
    assert as_counts(np.array([[[3]]], dtype=np.int32)).dtype == np.uint16
    assert as_counts(np.array([[[3.7, 2.2]]], dtype=np.float32)).tolist() == [[[4, 2]]]
    big_endian = np.array([[[258, 65535]]], dtype=">u2")
    assert as_counts(big_endian).tolist() == [[[258, 65535]]]
    assert as_counts(big_endian).dtype == np.uint16


def test_a_mean_of_few_dark_counts_is_no_transmission() -> None:
    assert as_counts(np.array([[[0.2, 0.9]]]), "dark").tolist() == [[[0, 1]]]


def test_a_damaged_frame_costs_itself_only_and_is_lost_once(run: RunFrames) -> None:
    counts = np.ones((3, 4, 6))
    counts[1] = np.nan
    block = run.frames(inline(counts, first_id=5))
    assert block.unique_ids.tolist() == [5, 7]
    ledger = run.ledger
    assert (ledger.received, ledger.corrupt, ledger.lost, ledger.missing) == (2, 1, 1, 1)
    told = [problem.text for problem in run.troubles.take()]
    assert any("nan counts at row 0, column 0 (not finite)" in text for text in told)
    assert any("frames 6 were damaged" in text for text in told)


def test_long_messages_are_cut(tmp_path: Path) -> None:
    parts = list(split_message(filed(tmp_path / "f.h5", 10, 70), 32))
    assert [(p.image.first, p.image.count) for p in parts] == [(10, 32), (42, 32), (74, 6)]  # type: ignore[union-attr]
    events = list(split_message(inline(np.zeros((5, 4, 6), dtype=np.uint16)), 2))
    assert [len(p.counts) for p in events] == [2, 2, 1]  # type: ignore[union-attr]
    assert np.concatenate([p.angles_rad for p in events]) == pytest.approx(np.linspace(0, 1, 5))


def test_the_angle_of_a_monitored_stage_is_looked_up_at_each_frames_time(tmp_path: Path) -> None:
    path = tmp_path / "frames.h5"
    seconds = np.arange(4) + int(NOW_S - EPICS_EPOCH_S)
    with h5py.File(path, "w", locking=False) as file:
        file["/entry/data/data"] = np.ones((4, 2, 3), dtype=np.uint16)
        file["/sec"], file["/nsec"] = seconds, np.full(4, 500_000_000)
    track = AngleTrack(times_s=NOW_S + np.array([0.0, 1.0, 3.0]), angles_rad=np.array([6.0, 6.2, 0.4]))
    message = filed(path, 0, 4, swmr=False)
    times = replace(message.image, dataset="/sec", nanoseconds="/nsec")
    message = replace(message, angle=None, unique_id=None, frame_time=times, angle_track=track)
    run = RunFrames()
    block = run.frames(message)
    run.close()
    # The stage's readback begins again at 2 pi; the last frame is younger than the last sample.
    assert block.angles_rad == pytest.approx(
        [6.1, 6.2 + 0.25 * (0.2 + 2 * np.pi - 6.0), 6.2 + 0.75 * (0.2 + 2 * np.pi - 6.0)]
    )
    assert block.frame_times_s == pytest.approx(NOW_S + np.array([0.5, 1.5, 2.5]))
    assert run.last_arrivals is not None
    assert run.last_arrivals.without_angle == 1


def test_a_delay_between_the_clocks_is_added_to_the_frames_time() -> None:
    track = AngleTrack(times_s=np.array([0.0, 10.0]), angles_rad=np.array([0.0, 1.0]), delay_s=2.0)
    assert track.at(np.array([-2.0, 3.0, 8.0, 8.1])) == pytest.approx([0.0, 0.5, 1.0, np.nan], nan_ok=True)


def test_angles_that_are_not_as_many_as_the_frames_are_never_paired(tmp_path: Path) -> None:
    path = tmp_path / "frames.h5"
    with h5py.File(path, "w", locking=False) as file:
        file["/entry/data/data"] = np.ones((4, 2, 3), dtype=np.uint16)
        file["/angle"] = np.arange(5.0)
    message = filed(path, 0, 4, swmr=False)
    assert message.angle is not None
    message = replace(message, angle=replace(message.angle, rows=4), unique_id=None, frame_time=None)
    run = RunFrames()
    with pytest.raises(UnusableCounts, match="has 5 rows, and there are 4 frames"):
        run.frames(message)
    run.close()
