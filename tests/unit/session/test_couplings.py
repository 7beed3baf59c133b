"""Couplings: where loss matters nothing is lost silently, where freshness matters only the newest is kept."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from bluesky_jit.messages import (
    AnglesUsed,
    Asset,
    AssetFrames,
    ImageKind,
    InlineFrames,
    Problem,
    RunMessage,
    RunStop,
    SessionStatus,
    Update,
)
from bluesky_jit.session.couplings import Inbox, Latest, Outbox, Refused
from bluesky_jit.tomo.grid import Grid

SOON_S = 20.0


def inline(n: int) -> InlineFrames:
    return InlineFrames(
        run_uid="r",
        kind="flat",
        counts=np.zeros((n, 2, 3), dtype=np.uint16),
        unique_ids=np.arange(n),
        frame_times_s=np.zeros(n),
        angles_rad=None,
        angle_source="plan arguments",
    )


def filed(n: int) -> AssetFrames:
    return AssetFrames(
        run_uid="r",
        kind="flat",
        image=Asset(uri="file://localhost/x.h5", dataset="image", first=0, count=n, swmr=True),
        angle=None,
        unique_id=None,
        frame_time=None,
        angle_scale=1.0,
        angles_rad=None,
        angle_source="plan arguments",
        document_time_s=0.0,
    )


def stop(run_uid: str) -> RunStop:
    return RunStop(run_uid=run_uid, time_s=0.0, exit_status="success")


def update(run_uid: str, number: int, name: str = "XY", kind: ImageKind = "raw") -> Update:
    return Update(
        run_uid=run_uid,
        number=number,
        slice_name=name,
        kind=kind,
        grid=Grid.slice_xy(z_mm=0.0, voxel_mm=1.0, shape=(2, 2)),
        image=np.zeros((1, 2, 2), dtype=np.float32),
        angles=AnglesUsed(count=1, first_id=0, last_id=0, arc_rad=0.1, source="same stream"),
        turn=0,
        flats="this run",
        frame_time_s=0.0,
        made_time_s=0.0,
    )


def all_of(inbox: Inbox) -> list[RunMessage | Refused]:
    messages = []
    while (message := inbox.take(0)) is not None:
        messages.append(message)
    return messages


def refused(messages: list[RunMessage | Refused]) -> int:
    """Count the frames that did not fit."""
    return sum(len(message) for message in messages if isinstance(message, Refused))


# ── the inbox ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_messages_come_out_in_the_order_in_which_they_went_in() -> None:
    inbox, messages = Inbox(10), [inline(1), filed(500), Problem(text="p"), inline(2), stop("r")]
    assert all(inbox.put(message) for message in messages)
    assert all_of(inbox) == messages


def test_frames_that_do_not_fit_are_refused_and_counted() -> None:
    inbox = Inbox(10)
    assert inbox.put(inline(8))
    assert not inbox.put(inline(3))
    assert inbox.put(inline(2))
    assert not inbox.put(inline(1))
    assert refused(all_of(inbox)) == 4


def test_frames_make_room_once_they_are_used_and_not_when_they_are_taken() -> None:
    inbox = Inbox(10)
    for _ in range(5):
        assert inbox.put(inline(10))
        taken = inbox.take(0)
        assert not inbox.put(inline(1))
        assert inbox.fill == 1.0
        assert taken is not None
        inbox.release(taken)
        assert refused(all_of(inbox)) == 1
    assert inbox.fill == 0.0


def test_which_frames_did_not_fit_stays_in_their_place_however_many_they_are() -> None:
    inbox = Inbox(10)
    inbox.put(inline(8))
    for _ in range(1000):
        inbox.put(inline(3))
    inbox.put(inline(2))
    first, note, last = all_of(inbox)
    assert isinstance(first, InlineFrames)
    assert isinstance(last, InlineFrames)
    assert isinstance(note, Refused)
    assert note.unique_ids[:6] == [0, 1, 2, 0, 1, 2]
    assert len(note) == 3000


def test_references_and_ends_fit_always() -> None:
    inbox = Inbox(1)
    assert inbox.put(inline(1))
    assert all(inbox.put(message) for message in (filed(10_000), Problem(text="p"), stop("r")))
    assert refused(all_of(inbox)) == 0


def test_an_empty_inbox_returns_nothing_after_a_while() -> None:
    inbox = Inbox(1)
    assert inbox.empty
    assert inbox.take(0.01) is None


def test_whoever_waits_gets_the_message_at_once() -> None:
    inbox, taken = Inbox(1), []
    waiting = threading.Thread(target=lambda: taken.append(inbox.take(SOON_S)))
    waiting.start()
    inbox.put(stop("r"))
    waiting.join(SOON_S)
    assert taken == [stop("r")]


def test_putting_never_waits_for_taking() -> None:
    inbox = Inbox(100)
    putting = threading.Thread(target=lambda: [inbox.put(inline(1)) for _ in range(1000)], daemon=True)
    putting.start()
    putting.join(SOON_S)
    assert not putting.is_alive()
    messages = all_of(inbox)
    frames = [message for message in messages if isinstance(message, InlineFrames)]
    assert (len(frames), refused(messages)) == (100, 900)


# ── the latest value ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_latest_wins_and_is_taken_once() -> None:
    latest: Latest[int] = Latest()
    for value in (1, 2, 3):
        latest.put(value)
    assert latest.take() == 3
    assert latest.take() is None


def test_whoever_waits_for_the_latest_gets_it() -> None:
    latest: Latest[int] = Latest()
    taken: list[int | None] = []
    waiting = threading.Thread(target=lambda: taken.append(latest.take(SOON_S)))
    waiting.start()
    latest.put(7)
    waiting.join(SOON_S)
    assert taken == [7]


# ── the outbox ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_every_image_only_the_newest_update_waits() -> None:
    outbox = Outbox()
    for number in range(3):
        for name in ("XY", "XZ"):
            outbox.put(update("r", number, name))
            outbox.put(update("r", number, name, "denoised"))
    waiting = [(message.slice_name, message.kind, message.number) for message in outbox.take(0)]  # type: ignore[union-attr]
    assert sorted(waiting) == [(name, kind, 2) for name in ("XY", "XZ") for kind in ("denoised", "raw")]
    assert outbox.take(0) == []


def test_events_are_all_kept_in_order() -> None:
    outbox = Outbox()
    events = [SessionStatus(time_s=time_s) for time_s in (1.0, 2.0, 3.0)]
    for event in events:
        outbox.put(event)
    assert outbox.take(0) == events


@pytest.mark.parametrize("first", ["update", "stop"])
def test_a_runs_last_updates_come_before_its_stop(first: str) -> None:
    outbox = Outbox()
    messages = [update("a", 9), stop("a")]
    for message in messages if first == "update" else reversed(messages):
        outbox.put(message)
    outbox.put(update("b", 1))
    assert [(message.run_uid, type(message)) for message in outbox.take(0)] == [  # type: ignore[union-attr]
        ("a", Update),
        ("a", RunStop),
        ("b", Update),
    ]
