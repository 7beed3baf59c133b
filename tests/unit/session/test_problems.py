"""What people are told of: a run's worst problem while it concerns them, what lasts for as long as it does."""

from __future__ import annotations

from bluesky_jit.messages import Problem, Severity
from bluesky_jit.session.problems import SESSION, Problems

AWAY = Problem(text="nobody answers", severity="MAJOR", lasts="Kafka")
BACK = Problem(text="it answers again", severity="NO_ALARM", lasts="Kafka")


def told(problems: Problems, shown_uid: str = SESSION) -> str:
    worst = problems.worst(shown_uid)
    return worst.text if worst else ""


def test_what_belonged_to_a_run_or_to_the_session_goes_with_the_next_run() -> None:
    problems = Problems()
    problems.report(Problem(text="of a run", run_uid="a"))
    problems.report(Problem(text="of a control", severity="MAJOR"))
    problems.keep({"b"})
    assert told(problems) == ""


def test_what_lasts_is_told_in_every_run_until_it_is_over() -> None:
    problems = Problems()
    problems.report(AWAY)
    for uid in ("a", "b", "c"):
        problems.keep({uid})
        assert told(problems, uid) == AWAY.text
    problems.report(BACK)
    assert told(problems) == BACK.text
    problems.keep({"d"})
    assert told(problems) == ""


def test_what_lasts_hides_no_problem_of_a_run_that_is_as_bad() -> None:
    problems = Problems()
    problems.report(AWAY)
    problems.report(Problem(text="its file is gone", severity="MAJOR", run_uid="a"))
    problems.report(Problem(text="slight", run_uid="a"))
    assert told(problems, "a") == "its file is gone"
    problems.keep({"b"})
    assert told(problems, "b") == AWAY.text


def test_the_worst_of_a_run_is_told_and_the_newer_of_two() -> None:
    problems = Problems()
    told_of_a: tuple[tuple[str, Severity], ...] = (("first", "MINOR"), ("grave", "MAJOR"), ("slight", "MINOR"))
    for text, severity in told_of_a:
        problems.report(Problem(text=text, severity=severity, run_uid="a"))
    assert told(problems, "a") == "grave"
    problems.report(Problem(text="grave, too", severity="MAJOR", run_uid="b"))
    assert told(problems, "a") == "run b: grave, too"
