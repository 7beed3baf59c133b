"""What a check has found, and how checks are run side by side, each within its time."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

logger = logging.getLogger(__name__)

Verdict = Literal["fine", "warning", "problem"]


LIMIT_S = 20.0
"""Whatever waits for an answer gives up after five; the rest is for libraries that load on a busy machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Say in one line what was looked at, whether it is fine, and if not, what to do."""

    subject: str
    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Name a check, what it does, and the seconds that it may take."""

    subject: str
    look: Callable[[], Sequence[Finding]]
    limit_s: float = LIMIT_S


def fine(subject: str, text: str) -> Finding:
    return Finding(subject=subject, verdict="fine", text=_one_line(text))


def warning(subject: str, text: str) -> Finding:
    """Say what can be better; all that is needed works without."""
    return Finding(subject=subject, verdict="warning", text=_one_line(text))


def problem(subject: str, text: str) -> Finding:
    """Say what must be done."""
    return Finding(subject=subject, verdict="problem", text=_one_line(text))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def examine(checks: Sequence[Check]) -> list[Finding]:
    """Run the checks side by side; return what they find, in their order.

    One that takes too long is a problem, and is left behind; so is one that breaks.
    """
    answers: list[queue.SimpleQueue[Sequence[Finding]]] = [queue.SimpleQueue() for _ in checks]
    began_s = time.monotonic()
    for check, answer in zip(checks, answers, strict=True):
        threading.Thread(target=_look, args=(check, answer), name=f"doctor-{check.subject}", daemon=True).start()
    found: list[Finding] = []
    for check, answer in zip(checks, answers, strict=True):
        try:
            found += answer.get(timeout=max(began_s + check.limit_s - time.monotonic(), 0.001))
        except queue.Empty:
            text = f"no answer within {check.limit_s:g} s: is the machine, or what it asks, very busy? Try again"
            found.append(problem(check.subject, text))
    return found


def _look(check: Check, answer: queue.SimpleQueue[Sequence[Finding]]) -> None:
    try:
        answer.put(check.look())
    except Exception as error:
        logger.debug("the check of %s broke", check.subject, exc_info=True)
        text = f"could not be checked ({type(error).__name__}: {error}): try again, and report it if it stays"
        answer.put([problem(check.subject, text)])
