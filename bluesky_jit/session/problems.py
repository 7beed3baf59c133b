"""What people are told of: the worst problem of the run on show, of the other open runs, and of the session itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from dataclasses import replace

from bluesky_jit.messages import Problem

logger = logging.getLogger(__name__)

RANK = {"NO_ALARM": 0, "MINOR": 1, "MAJOR": 2, "INVALID": 3}
SESSION = ""
"""In the place of a run's uid: problems that belong to no run."""


class Problems:
    """Keep the worst problem of each run, and those that last; the log has them all."""

    def __init__(self) -> None:
        self._worst: dict[tuple[str, str], Problem] = {}
        """By the run's uid, and by what lasts."""
        self._lock = threading.Lock()

    def report(self, problem: Problem) -> None:
        """Log a problem, and keep it unless a worse one of its run is known; what lasts is as it was last told."""
        key = problem.run_uid, problem.lasts
        with self._lock:
            known = self._worst.get(key)
            if problem == known:
                return
            if known is None or problem.lasts or RANK[problem.severity] >= RANK[known.severity]:
                # Last in order: of two that are as bad the newer one is told.
                self._worst.pop(key, None)
                self._worst[key] = problem
        logger.log(logging.ERROR if problem.severity in ("MAJOR", "INVALID") else logging.WARNING, problem.text)

    def keep(self, uids: Collection[str]) -> None:
        """Forget what belongs to other runs than these, unless it lasts; SESSION: keep what belongs to none."""

        def stays(problem: Problem) -> bool:
            return problem.run_uid in uids or (bool(problem.lasts) and problem.severity != "NO_ALARM")

        with self._lock:
            self._worst = {key: problem for key, problem in self._worst.items() if stays(problem)}

    def worst(self, shown_uid: str) -> Problem | None:
        """Return what is to be told while a run is on show; what belongs to another one says so."""
        with self._lock:
            problems = list(self._worst.values())
        worst = max(reversed(problems), key=lambda problem: RANK[problem.severity], default=None)
        if worst is None or worst.run_uid in (SESSION, shown_uid) or worst.run_uid[:8] in worst.text:
            return worst
        return replace(worst, text=f"run {worst.run_uid[:8]}: {worst.text}")
