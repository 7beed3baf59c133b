"""Checks run side by side, each within its time; one that breaks is a line."""

import threading

from bluesky_jit.doctor.finding import Check, Finding, examine, fine, problem, warning


def test_what_is_found_comes_in_the_order_of_the_checks() -> None:
    second_is_done = threading.Event()

    def first() -> list[Finding]:
        # Were they run one after the other, the second would never come to be done.
        assert second_is_done.wait(30)
        return [fine("one", "first"), warning("one", "again")]

    def second() -> list[Finding]:
        second_is_done.set()
        return [problem("two", "second")]

    found = examine([Check(subject="one", look=first, limit_s=60), Check(subject="two", look=second, limit_s=60)])
    assert [(each.subject, each.verdict, each.text) for each in found] == [
        ("one", "fine", "first"),
        ("one", "warning", "again"),
        ("two", "problem", "second"),
    ]


def test_a_check_that_breaks_is_one_line_and_the_others_go_on() -> None:
    def breaks() -> list[Finding]:
        raise RuntimeError("a driver\nfell over")

    broken, other = examine(
        [Check(subject="GPU", look=breaks), Check(subject="CPU", look=lambda: [fine("CPU", "here")])]
    )
    assert (broken.subject, broken.verdict) == ("GPU", "problem")
    assert broken.text.startswith("could not be checked (RuntimeError: a driver fell over): ")
    assert other == fine("CPU", "here")


def test_a_check_that_takes_too_long_is_left_behind() -> None:
    ended = threading.Event()

    def hangs() -> list[Finding]:
        ended.wait(60)
        return []

    [found] = examine([Check(subject="Tiled", look=hangs, limit_s=0.05)])
    ended.set()
    assert (found.subject, found.verdict) == ("Tiled", "problem")
    assert "no answer within 0.05 s" in found.text


def test_a_finding_is_one_line() -> None:
    assert problem("x", "several\nlines  of\ttext").text == "several lines of text"
