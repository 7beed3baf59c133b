"""Frames that came long ago take little room, and nothing that is asked about them is answered otherwise."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bluesky_jit.intake.frame_count import HORIZON
from bluesky_jit.intake.ledger import Ledger
from bluesky_jit.messages import FrameKind

START_S = 1_790_000_000.0
PERIOD_S = 0.0121
PAUSE_S = 10.0
KINDS: tuple[FrameKind, ...] = get_args(FrameKind)
FATES = ["kept"] * 12 + ["lost", "missed", "missed", "damaged", "twice by tap", "twice by documents", "twice by both"]
"""What becomes of a frame: mostly nothing; missed: by the tap."""
ENOUGH = 20_000
"""Frames of a long run: many times those that are kept one by one."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """What comes at once; times_s: None where nobody has stamped the frames."""

    kind: FrameKind
    unique_ids: tuple[int, ...]
    times_s: tuple[float, ...] | None
    tapped: bool
    usable: tuple[bool, ...]
    numbered: bool = True

    def times(self) -> np.ndarray | None:
        return None if self.times_s is None else np.array(self.times_s)


@dataclass(frozen=True, kw_only=True)
class Frame:
    kind: FrameKind
    unique_id: int
    time_s: float
    fate: str
    late: int
    """After how many others its copy by the tap comes."""


@st.composite
def detected(draw: st.DrawFn, *, counts_on: bool) -> list[Frame]:
    """Draw series of frames: the detector counts on over all of them, or from one for each."""
    frames: list[Frame] = []
    unique_id, time_s = 0, START_S
    for kind in draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4)):
        unique_id = unique_id if counts_on else 0
        time_s += PAUSE_S
        for left in range(draw(st.integers(0, 13)), -1, -1):
            unique_id, time_s = unique_id + 1, time_s + PERIOD_S
            at_s = time_s + PERIOD_S * draw(st.sampled_from([0.0, -0.2, 0.2]))
            fate, late = draw(st.sampled_from(FATES)), draw(st.sampled_from([0] * 6 + [1, 2, 3, 8]))
            frames.append(Frame(kind=kind, unique_id=unique_id, time_s=at_s, fate=fate, late=min(late, left)))
    return frames


def by_tap(frames: list[Frame]) -> list[Block]:
    copies: list[tuple[int, Block]] = []
    for place, frame in enumerate(frames):
        block = Block(
            kind=frame.kind,
            unique_ids=(frame.unique_id,),
            times_s=(frame.time_s,),
            tapped=True,
            usable=(frame.fate != "damaged",),
        )
        n = {"lost": 0, "missed": 0, "twice by tap": 2, "twice by both": 2}.get(frame.fate, 1)
        copies += [(place + frame.late, block)] * n
    return [block for _, block in sorted(copies, key=lambda copy: copy[0])]


@st.composite
def by_documents(draw: st.DrawFn, frames: list[Frame], *, stamped: bool, numbered: bool) -> list[Block]:
    """Draw blocks of some rows each; some come after the next one."""
    came = [frame for frame in frames if frame.fate != "lost"]
    # Without numbers nobody knows a repeat.
    twice = ("twice by documents", "twice by both") if numbered else ()
    rows = [frame for frame in came for _ in range(1 + (frame.fate in twice))]
    blocks: list[Block] = []
    while rows:
        n = draw(st.integers(1, 6))
        some = [frame for frame in rows[:n] if frame.kind == rows[0].kind]
        rows = rows[len(some) :]
        damaged = draw(st.booleans()) and some[0].fate == "damaged"
        blocks.append(
            Block(
                kind=some[0].kind,
                unique_ids=tuple(frame.unique_id for frame in some),
                times_s=tuple(frame.time_s for frame in some) if stamped else None,
                tapped=False,
                usable=(not damaged, *(True for _ in some[1:])),
                numbered=numbered,
            )
        )
    for place in draw(st.lists(st.integers(0, len(blocks)), max_size=3)) if numbered else ():
        blocks[place : place + 2] = reversed(blocks[place : place + 2])
    return blocks


@st.composite
def stories(draw: st.DrawFn) -> list[Block]:
    """Draw what comes in a run: by documents, by the tap, or by both, one of which is behind the other."""
    counts_on = draw(st.booleans())
    frames = draw(detected(counts_on=counts_on))
    sources = draw(st.sampled_from(["documents", "tap", "both", "both", "both", "documents without numbers"]))
    # Without times nobody can tell frames of one count from those of the next.
    stamped = not counts_on or draw(st.booleans())
    if sources == "documents without numbers":
        # Where the tap connects in mid-run, it says which numbers they had.
        first = draw(st.integers(0, len(frames)))
        told = draw(by_documents(frames[:first], stamped=stamped, numbered=False))
        return told + by_tap(frames[max(0, first - 2) :])
    taps = by_tap(frames) if sources != "documents" else []
    told = draw(by_documents(frames, stamped=stamped, numbered=True)) if sources != "tap" else []
    begun = [False] * draw(st.integers(0, len(told)))
    mixed = draw(st.lists(st.booleans(), max_size=len(taps) + len(told)))
    blocks: list[Block] = []
    for is_tap in [*begun, *mixed, *[True] * (len(taps) + len(told))]:
        source = taps if taps and (is_tap or not told) else told
        blocks += [source.pop(0)] if source else []
    again = draw(st.lists(st.sampled_from(blocks), max_size=4)) if blocks else []
    return blocks + again


def figures(ledger: Ledger) -> tuple[Any, ...]:
    counts = tuple(ledger.count(kind) for kind in KINDS)
    figures = (ledger.received, ledger.missing, ledger.lost, ledger.unread, ledger.backfilled, ledger.tapped)
    return (*counts, *figures, ledger.late, ledger.duplicates, ledger.corrupt)


def answers(ledger: Ledger, story: list[Block]) -> list[Any]:
    """Return all that a ledger says while frames come, and when they have come."""
    said: list[Any] = []
    all_numbered = all(block.numbered for block in story)
    for block in story:
        ids = np.array(block.unique_ids) if block.numbered else None
        if ids is not None and all_numbered:
            said += [ledger.known(block.kind, ids, times).tolist() for times in (block.times(), None)]
        usable = np.array(block.usable)
        n = len(block.unique_ids)
        arrivals = ledger.enter(block.kind, ids, n, block.times(), tapped=block.tapped, usable=usable)
        said += [replace(arrivals, acquisition=arrivals.acquisition.tolist(), keep=arrivals.keep.tolist())]
        said += [figures(ledger)]
    for kind in KINDS if all_numbered else ():
        others = [block.times_s[0] for block in story if block.kind != kind and block.times_s]
        said += [ledger.taken_before(kind, time_s) for time_s in others]
    ledger.give_up("projection", 2)
    ledger.unlocated("projection", 3)
    said += [figures(ledger), ledger.unplaced(40), ledger.expect("projection", 60), ledger.finish(), figures(ledger)]
    return said


@settings(max_examples=60)
@given(story=stories(), horizon=st.integers(3, 6))
def test_what_settles_early_is_known_as_well_as_what_never_settles(story: list[Block], horizon: int) -> None:
    early, never = Ledger(horizon), Ledger(sys.maxsize)
    assert answers(early, story) == answers(never, story)


def enter(ledger: Ledger, ids: np.ndarray, *, tapped: bool = False, offset_s: float = 0.0) -> np.ndarray:
    """Enter projections, 64 at a time, taken at a steady rate; return which were kept."""
    kept = []
    for some in np.array_split(ids, max(1, len(ids) // 64)):
        times_s = START_S + PERIOD_S * some + offset_s
        kept.append(ledger.enter("projection", some, len(some), times_s, tapped=tapped).keep)
    return np.concatenate(kept)


@pytest.mark.parametrize("numbered", [True, False], ids=["numbered", "without numbers"])
@pytest.mark.parametrize("stamped", [True, False], ids=["stamped", "without times"])
def test_a_long_run_by_documents_takes_no_more_room_than_a_short_one(numbered: bool, stamped: bool) -> None:
    ledger = Ledger(100)
    for first in range(0, ENOUGH, 250):
        ids, times_s = np.arange(first, first + 250), START_S + PERIOD_S * np.arange(first, first + 250)
        ledger.enter("projection", ids if numbered else None, 250, times_s if stamped else None)
    assert ledger.count("projection") == ENOUGH
    assert ledger.entries < 4 * 100 + 10


@pytest.mark.parametrize("behind", [64, ENOUGH], ids=["documents follow", "documents come in the end"])
def test_a_long_run_by_tap_and_documents_takes_no_more_room_than_a_short_one(behind: int) -> None:
    ledger = Ledger()
    most = 0
    for first in range(0, ENOUGH, behind):
        ids = np.arange(first, min(first + behind, ENOUGH))
        enter(ledger, ids, tapped=True)
        most = max(most, ledger.entries)
        assert not enter(ledger, ids).any()
        most = max(most, ledger.entries)
    assert (ledger.count("projection"), ledger.lost, ledger.duplicates) == (ENOUGH, 0, 0)
    assert most < 4 * HORIZON + 20


def test_room_is_taken_by_what_is_wrong() -> None:
    ledger, whole = Ledger(100), Ledger(100)
    ids = np.arange(2_000)
    enter(ledger, np.delete(ids, [500, 501, 1_000]))
    enter(whole, ids)
    assert ledger.entries > whole.entries
    enter(ledger, np.array([500, 501, 1_000]))
    for each in (ledger, whole):
        enter(each, 2_000 + np.arange(200))
    assert (ledger.lost, ledger.entries) == (0, whole.entries)


@pytest.mark.parametrize("tapped", [True, False], ids=["by tap", "by documents"])
def test_a_frame_that_has_settled_is_known_and_used_once(tapped: bool) -> None:
    ledger = Ledger(10)
    ids = np.arange(1_000)
    enter(ledger, ids, tapped=tapped)
    again = ids[300:310]
    assert ledger.known("projection", again, START_S + PERIOD_S * again).all()
    assert ledger.known("projection", again, None).all()
    for n in (1, 2):
        assert not enter(ledger, again, tapped=tapped).any()
        assert ledger.duplicates == 10 * n
    # The other source brings the same repeats.
    for _ in range(3):
        assert not enter(ledger, again, tapped=not tapped).any()
    assert (ledger.received, ledger.duplicates, ledger.tapped) == (1_000, 20, 1_000 if tapped else 10)


def test_a_missing_frame_among_settled_ones_gets_its_own_number() -> None:
    ledger = Ledger(10)
    enter(ledger, np.delete(np.arange(1_000), 400), tapped=True)
    assert (ledger.missing, ledger.lost) == (1, 0)
    enter(ledger, np.delete(np.arange(1_000), 400))
    assert (ledger.missing, ledger.lost) == (1, 1)
    late = ledger.enter("projection", np.array([400]), 1, np.array([START_S + PERIOD_S * 400]))
    assert (late.acquisition.tolist(), late.keep.tolist()) == ([400], [True])
    assert (ledger.missing, ledger.lost, ledger.backfilled) == (0, 0, 1)


def test_documents_of_another_clock_tell_of_settled_frames() -> None:
    ledger = Ledger(10)
    ids = np.arange(1_000)
    by_tap = np.delete(ids, np.arange(500, 600))
    enter(ledger, by_tap, tapped=True)
    assert np.flatnonzero(enter(ledger, ids[:501], offset_s=-0.7)).tolist() == [500]
    enter(ledger, 1_000 + np.arange(100), tapped=True)
    # That one has settled among frames that were taken before it.
    assert not enter(ledger, by_tap, tapped=True).any()
    assert not enter(ledger, by_tap[500:], offset_s=-0.7).any()
    assert (ledger.received, ledger.missing, ledger.duplicates, ledger.backfilled) == (1_001, 99, 900, 1)


def test_documents_without_times_tell_of_settled_frames_whichever_come_first() -> None:
    ids = np.arange(1_000)
    for first_by_tap in (True, False):
        ledger = Ledger(10)
        for tapped in (first_by_tap, not first_by_tap):
            times_s = START_S + PERIOD_S * ids if tapped else None
            kept = ledger.enter("projection", ids, 1_000, times_s, tapped=tapped).keep
            assert kept.all() == (tapped == first_by_tap)
        assert (ledger.received, ledger.tapped, ledger.duplicates) == (1_000, 1_000, 0)
        if first_by_tap:
            ledger.enter("projection", 1_000 + np.arange(20), 20)
            # The detector's count is set anew.
            assert enter(ledger, ids, tapped=True, offset_s=60.0).all()


@pytest.mark.parametrize("stamped", [True, False], ids=["stamped", "without times"])
def test_settled_frames_that_came_without_numbers_get_them_with_the_others(stamped: bool) -> None:
    ledger = Ledger(3)
    ids = 5_000 + np.arange(100)
    times_s = START_S + PERIOD_S * ids
    usable = np.arange(100) != 50
    ledger.enter("projection", None, 100, times_s if stamped else None, usable=usable)
    # By time the damaged one is found; without times the next one follows.
    first = 50 if stamped else 100
    tapped = ledger.enter(
        "projection", np.array([5_000 + first]), 1, START_S + PERIOD_S * np.array([5_000 + first]), tapped=True
    )
    assert (tapped.acquisition.tolist(), tapped.keep.all(), tapped.restarted) == ([first], True, False)
    assert ledger.known("projection", ids, times_s).tolist() == (usable | stamped).tolist()


def test_what_the_tap_misses_after_frames_without_numbers_is_not_lost_yet() -> None:
    ledger = Ledger(3)
    ledger.enter("projection", None, 10, START_S + PERIOD_S * np.arange(10))
    ids = np.array([3, 6])
    ledger.enter("projection", ids, 2, START_S + PERIOD_S * (ids + 6), tapped=True)
    assert (ledger.missing, ledger.lost) == (2, 0)


def test_flats_know_how_many_settled_projections_were_taken_before() -> None:
    ledger = Ledger(10)
    enter(ledger, np.arange(1_000))
    times_s = START_S + PERIOD_S * np.array([-0.5, 0.5, 432.5, 998.5, 999.5])
    assert [ledger.taken_before("projection", time_s) for time_s in times_s] == [0, 1, 433, 999, 1_000]
    assert ledger.taken_before("flat", START_S) is None


@pytest.mark.parametrize("pause_s", [2.0, 60.0])
def test_a_count_that_is_set_anew_while_frames_are_lost_brings_no_repeats(pause_s: float) -> None:
    """The tap has lost as many frames of the second series as the first one had: its ids seem to go on."""
    ledger = Ledger(10)
    enter(ledger, np.arange(100), tapped=True)
    enter(ledger, np.arange(100, 300), tapped=True, offset_s=pause_s)
    enter(ledger, np.arange(100))
    assert enter(ledger, np.arange(100), offset_s=pause_s).all()
    assert ledger.received == 400


@pytest.mark.parametrize("usable", [True, False], ids=["every other frame is missing", "all frames are damaged"])
def test_a_run_of_which_all_is_wrong_is_counted_to_its_end(usable: bool) -> None:
    ledger = Ledger()
    for n in range(10_000):
        unique_id = 2 * n if usable else n
        arrivals = ledger.enter(
            "projection",
            np.array([unique_id]),
            1,
            np.array([START_S + PERIOD_S * unique_id]),
            usable=np.array([usable]),
        )
        assert arrivals.acquisition.tolist() == [unique_id]
    assert ledger.lost == 10_000 - usable
