"""Frames are sent no faster than they are taken."""

from typing import Any

import pytest

from bluesky_jit.cli.replay_flow import STUCK_S, Flow


class Taker:
    """Take frames only while the sender sleeps, a few each time."""

    def __init__(self, each_time: int) -> None:
        self.each_time = each_time
        self.sent = self.taken = self.most = 0
        self.now_s = 0.0

    def emit(self, name: str, document: dict[str, Any]) -> None:
        self.sent += name == "event"
        self.most = max(self.most, self.sent - self.taken)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.taken = min(self.sent, self.taken + self.each_time)

    def flow(self, most: int, says: str = "") -> Flow:
        return Flow(
            self.emit,
            lambda uid: self.taken,
            most=most,
            says=lambda: says,
            clock=lambda: self.now_s,
            sleep=self.sleep,
        )


def test_no_more_than_so_many_frames_are_on_the_way() -> None:
    taker = Taker(3)
    flow = taker.flow(8)
    flow("start", {"uid": "a"})
    for _ in range(100):
        flow("event", {})
    flow.wait()
    assert (taker.sent, taker.taken, taker.most) == (100, 100, 8)


def test_documents_without_frames_wait_for_nothing() -> None:
    taker = Taker(0)
    flow = taker.flow(1)
    for name in ("start", "descriptor", "stop"):
        flow(name, {"uid": "a"})
    assert taker.now_s == 0


@pytest.mark.parametrize(("says", "why"), [("the disk is full", "the disk is full"), ("", "does not say why")])
def test_frames_that_nobody_takes_are_given_up_with_what_the_session_says(says: str, why: str) -> None:
    taker = Taker(0)
    flow = taker.flow(2, says)
    flow("start", {"uid": "a"})
    flow("event", {})
    flow("event", {})
    with pytest.raises(RuntimeError, match=f"2 frames were sent and 0 taken, none of them for 60 s: .*{why}"):
        flow("event", {})
    assert taker.now_s == pytest.approx(STUCK_S, abs=1.0)
