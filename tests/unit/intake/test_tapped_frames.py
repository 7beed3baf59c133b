"""Frames of the tap that documents complete, correct or cannot place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from bluesky_jit.intake.frames import UNIQUE_ID_DATASET, RunFrames
from bluesky_jit.messages import Asset, AssetFrames, FrameKind, InlineFrames
from bluesky_jit.session.couplings import Inbox, Refused
from bluesky_jit.settings_sections import IntakeSettings

START_S = 1_790_000_000.0
N = 4
SHAPE = (2, 3)


def pictures(n: int = N, first: int = 0) -> np.ndarray:
    return np.arange(first + 1, first + n + 1, dtype=np.uint16)[:, None, None] * np.ones(SHAPE, dtype=np.uint16)


def tapped(counts: np.ndarray, ids: list[int], kind: FrameKind = "projection", **changes: object) -> InlineFrames:
    message = InlineFrames(
        run_uid="r",
        kind=kind,
        counts=counts,
        unique_ids=np.array(ids),
        frame_times_s=START_S + np.array(ids, dtype=float),
        angles_rad=np.array(ids, dtype=float) if kind == "projection" else None,
        angle_source="frame attribute",
        tapped=True,
    )
    return replace(message, **changes)


@pytest.fixture
def run() -> Iterator[RunFrames]:
    frames = RunFrames("r", intake=IntakeSettings(queue_frames=3))
    yield frames
    frames.close()


def announced(path: Path, kind: FrameKind = "projection", *, ids: bool = True) -> AssetFrames:
    def asset(name: str) -> Asset:
        return Asset(uri=path.as_uri(), dataset=name, first=0, count=N, swmr=False)

    return AssetFrames(
        run_uid="r",
        kind=kind,
        image=asset("image"),
        angle=asset("angle") if kind == "projection" else None,
        unique_id=asset(UNIQUE_ID_DATASET) if ids else None,
        frame_time=asset("time") if ids else None,
        angle_scale=1.0,
        angles_rad=None,
        angle_source="same stream",
        document_time_s=START_S,
    )


def write(path: Path, *, ids: list[int], store_ids: bool = True, unreadable: tuple[int, ...] = ()) -> Path:
    with h5py.File(path, "w", locking=False) as file:
        image = file.create_dataset("image", data=pictures(), chunks=(1, *SHAPE), compression="gzip")
        for row in unreadable:
            image.id.write_direct_chunk((row, 0, 0), b"not compressed")
        file["angle"], file["time"] = np.array(ids, dtype=float), START_S + np.array(ids, dtype=float)
        if store_ids:
            file[UNIQUE_ID_DATASET] = np.array(ids)
    return path


@pytest.mark.parametrize("kind", ["flat", "projection"])
def test_a_frame_that_does_not_say_what_it_is_waits_until_documents_do(
    tmp_path: Path, run: RunFrames, kind: FrameKind
) -> None:
    path = write(tmp_path / "f.h5", ids=[11, 12, 13, 14], unreadable=(1, 2, 3))
    for number, unique_id in enumerate((11, 12, 13, 14)):
        assert len(run.frames(tapped(pictures(1, number), [unique_id], awaits_documents=True))) == 0
    # The oldest of four has given way to the newest three, and is read.
    block = run.frames(announced(path, kind))
    assert (block.kind, block.unique_ids.tolist()) == (kind, [11, 12, 13, 14])
    np.testing.assert_array_equal(block.counts, pictures())
    if kind == "projection":
        assert block.angles_rad.tolist() == [11.0, 12.0, 13.0, 14.0]
    assert (run.ledger.received, run.ledger.lost, run.ledger.duplicates) == (N, 0, 0)


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (np.ones((1, 5, 3), dtype=np.uint16), "frames of 5×3 pixels came in a run of 2×3"),
        (np.full((1, *SHAPE), np.nan), "nan counts"),
        (np.full((1, *SHAPE), -1.0), "(negative)"),
        (np.full((1, *SHAPE), 1j), "of type complex128"),
    ],
)
def test_a_good_copy_takes_the_place_of_a_damaged_one(
    tmp_path: Path, run: RunFrames, damaged: np.ndarray, words: str
) -> None:
    path = write(tmp_path / "f.h5", ids=[1, 2, 3, 4])
    run.frames(tapped(pictures(1), [1]))
    assert len(run.frames(tapped(damaged, [2]))) == 0
    told = " ".join(problem.text for problem in run.troubles.take())
    assert words in told
    assert "frames 2 were damaged and left out" in told
    assert (run.ledger.missing, run.ledger.lost) == (1, 0)
    block = run.frames(announced(path))
    assert (block.unique_ids.tolist(), block.acquisition.tolist()) == ([2, 3, 4], [1, 2, 3])
    ledger = run.ledger
    assert (ledger.received, ledger.corrupt, ledger.missing, ledger.lost, ledger.backfilled) == (N, 1, 0, 0, 3)


def test_a_projection_without_angle_is_left_out_alone_and_named(run: RunFrames) -> None:
    block = run.frames(tapped(pictures(3), [5, 6, 7], angles_rad=np.array([0.0, np.nan, 0.2])))
    assert block.unique_ids.tolist() == [5, 7]
    assert "projection 1 has no angle" in " ".join(problem.text for problem in run.troubles.take())


def test_numbers_that_no_document_tells_of_are_found_in_the_cameras_file(tmp_path: Path, run: RunFrames) -> None:
    path = write(tmp_path / "f.h5", ids=[1, 2, 3, 4], unreadable=(0, 1, 3))
    run.frames(tapped(pictures(2), [1, 2]))
    run.frames(tapped(pictures(1, 3), [4]))
    block = run.frames(announced(path, ids=False))
    assert (block.unique_ids.tolist(), int(block.counts[0, 0, 0])) == ([3], 3)


def test_documents_without_any_numbers_bring_nothing_beside_the_tap_and_it_is_told(
    tmp_path: Path, run: RunFrames
) -> None:
    path = write(tmp_path / "f.h5", ids=[1, 2, 3, 4], store_ids=False)
    run.frames(tapped(pictures(2), [1, 2]))
    assert len(run.frames(announced(path, ids=False))) == 0
    assert run.ledger.received == 2
    (problem,) = run.troubles.take()
    assert "give no frame numbers" in problem.text


def test_events_bring_what_the_tap_lost_whatever_clock_they_have(run: RunFrames) -> None:
    run.frames(tapped(pictures(2), [1, 2]))
    event = tapped(pictures(), [1, 2, 3, 4], tapped=False, angle_source="same stream")
    block = run.frames(replace(event, frame_times_s=event.frame_times_s + 0.7))
    assert block.unique_ids.tolist() == [3, 4]
    assert (run.ledger.received, run.ledger.duplicates, run.ledger.backfilled) == (N, 0, 2)


def test_flats_that_the_tap_lost_count_from_when_they_were_taken(tmp_path: Path, run: RunFrames) -> None:
    path = write(tmp_path / "f.h5", ids=[1, 2, 3, 4])
    run.frames(tapped(pictures(3), [11, 12, 13]))
    before = run.frames(announced(path, "flat"))
    assert before.after == 0
    after = run.frames(tapped(pictures(1), [14], "flat"))
    assert after.after == 3


def test_tapped_frames_that_do_not_fit_the_queue_are_noted_apart_from_others() -> None:
    inbox = Inbox(most_frames=2)
    assert inbox.put(tapped(pictures(2), [1, 2]))
    assert not inbox.put(tapped(pictures(1), [3]))
    assert not inbox.put(tapped(pictures(1), [3], tapped=False))
    assert not inbox.put(tapped(pictures(1), [4]))
    assert not inbox.put(tapped(pictures(1), [5], awaits_documents=True))
    notes = [message for message in iter(lambda: inbox.take(0), None) if isinstance(message, Refused)]
    assert [(note.tapped, note.awaits_documents, note.unique_ids) for note in notes] == [
        (True, False, [3]),
        (False, False, [3]),
        (True, False, [4]),
        (True, True, [5]),
    ]


@pytest.mark.parametrize("told_of", [0, 1])
def test_frames_that_no_document_tells_of_are_lost_and_let_go_when_the_run_has_ended(
    tmp_path: Path, run: RunFrames, told_of: int
) -> None:
    darks = pictures(2, first=90)
    run.frames(tapped(darks, [1, 2], "dark"))
    for number in range(11, 16):
        run.frames(tapped(pictures(1, number), [number], awaits_documents=True))
    if told_of:
        run.frames(announced(write(tmp_path / "f.h5", ids=[11, 12, 13, 14])))
    lost = 1 if told_of else 5
    [problem] = run.end()
    assert f"{lost} frames that came by PVA did not say what they are" in problem.text
    assert "attributes FrameType and Angle" in problem.text
    assert (run.ledger.received, run.ledger.lost, run.ledger.missing) == (2 + N * told_of, lost, lost)
    assert len(run._held) == 0


@pytest.mark.parametrize("ids", [True, False])
def test_frames_that_documents_bring_otherwise_are_not_lost_with_what_was_held(
    tmp_path: Path, run: RunFrames, ids: bool
) -> None:
    for number in (11, 12, 13, 14):
        run.frames(tapped(pictures(1, number), [number], awaits_documents=True))
    run.frames(announced(write(tmp_path / "f.h5", ids=[11, 12, 13, 14], store_ids=ids), ids=ids))
    assert run.end() == []
    assert (run.ledger.received, run.ledger.lost) == (N, 0)
