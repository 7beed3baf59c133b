"""JITCallback: documents of a live run in, messages to the session out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from event_model import RunRouter

from bluesky_jit.intake.pages import single_pages
from bluesky_jit.intake.run_intake import Receiver, RunIntake
from bluesky_jit.messages import Problem

logger = logging.getLogger(__name__)


class JITCallback:
    """Send a RunEngine's tomography runs to a session: `RE.subscribe(JITCallback(session))`.

    It never blocks the RunEngine and never raises into it: what it cannot read becomes a Problem that people see.
    """

    def __init__(self, session: Receiver) -> None:
        self._session = session
        self._router = RunRouter([self._open])
        self._runs: dict[str, str] = {}
        """The run of every start, descriptor and resource that was seen, by uid."""
        self._told_late = False

    def __call__(self, name: str, document: dict[str, Any]) -> None:
        try:
            for kind, part in single_pages(name, document):
                if self._know(kind, part):
                    self._router(kind, part)
        except Exception as error:
            logger.exception("a document (%s) could not be used", name)
            self._session.submit(Problem(text=f"a document ({name}) could not be used: {error}", severity="MAJOR"))

    def _know(self, name: str, document: Mapping[str, Any]) -> bool:
        """Tell whether a document's run was seen from its start, and forget the run when it stops."""
        if name == "start":
            self._told_late = False
            self._runs[document["uid"]] = document["uid"]
            return True
        references = [
            document[key] for key in ("run_start", "descriptor", "stream_resource", "resource") if key in document
        ]
        run_uid = next((self._runs[uid] for uid in references if uid in self._runs), None)
        if run_uid is None:
            if not self._told_late:
                text = "joined a run after its start: its slices cannot be made; the next run will be picked up"
                self._session.submit(Problem(text=text))
            self._told_late = True
            return False
        if name == "stop":
            self._runs = {uid: run for uid, run in self._runs.items() if run != run_uid}
        elif name in ("descriptor", "resource", "stream_resource"):
            self._runs[document["uid"]] = run_uid
        return True

    def _open(self, name: str, start: Mapping[str, Any]) -> tuple[list[RunIntake], list[Any]]:
        return [RunIntake(self._session)], []
