"""Ctrl-C ends learning, and the next one the process."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest

from bluesky_jit.cli.replay_learning import first_interrupt, learn_on, still_improves


class Learner:
    """Learn for ever, without ever being ready."""

    def __init__(self, *, presses: int) -> None:
        self.presses = presses
        self.looks = 0
        learning = SimpleNamespace(ready=False, held_out=0.9)
        self.status = SimpleNamespace(learning=learning, state="running")
        self.run = SimpleNamespace(learning_problem="", reconstruction=SimpleNamespace(ready=True))

    def wait_for(self, predicate: Any, seconds: float) -> bool:
        self.looks += 1
        for _ in range(self.presses if self.looks == 2 else 0):
            signal.raise_signal(signal.SIGINT)
        return predicate(self.status)


class Bars:
    def advance(self, *_: Any) -> None:
        pass


def test_the_first_interrupt_ends_learning(caplog: pytest.LogCaptureFixture) -> None:
    learner: Any = Learner(presses=1)
    learn_on(learner, 1e6, Bars())  # type: ignore[arg-type]
    assert learner.looks == 2
    [record] = [each for each in caplog.records if each.name == "bluesky_jit.cli.replay_learning"]
    assert "what there is will be drawn" in record.message
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_interrupts() -> None:
    learner: Any = Learner(presses=2)
    with pytest.raises(KeyboardInterrupt):
        learn_on(learner, 1e6, Bars())  # type: ignore[arg-type]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_somebody_elses_stays() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with first_interrupt() as interrupted:
            signal.raise_signal(signal.SIGINT)
            assert (heard, interrupted()) == ([signal.SIGINT], False)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("accuracies", "improves"),
    [([], True), ([0.6, 0.5, 0.4], True), ([0.6, 0.6, 0.5, 0.6], True), ([0.5, 0.6, 0.6, 0.5], False)],
)
def test_learning_goes_on_while_it_improves(accuracies: list[float], improves: bool) -> None:
    assert still_improves(accuracies) is improves
