"""JITCallback: documents of a live run in, messages to the session out."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bluesky_jit.intake.history import size_of
from bluesky_jit.intake.late_run import NAMED, LateRun, RecordedRun, references_of
from bluesky_jit.intake.late_stream import Document
from bluesky_jit.intake.pages import call_all, single_pages
from bluesky_jit.intake.run_intake import Receiver, RunIntake
from bluesky_jit.messages import Problem

if TYPE_CHECKING:
    # It brings Tiled's client, which takes a second to import.
    from bluesky_jit.intake.catch_up import CatchUp

logger = logging.getLogger(__name__)

MOST_OPEN = 64
"""Runs that may be open at a time: a RunEngine that died never ends its own, and anybody can send rubbish."""
MOST_HELD_BYTES = 128 * 2**20
"""Documents of a late run that may wait until its record is found."""
ENDED_KEPT = 64
"""Runs that have ended are remembered for a while: what of them still comes is no run that was missed."""
MOST_EARLY = 10_000
"""Datums that may wait for the document that says whose they are: some MB."""
LATE = "joined a run after its start"
LOST = "its slices cannot be made; the next run will be picked up"


class JITCallback:
    """Send a RunEngine's tomography runs to a session: `RE.subscribe(JITCallback(session))`.

    It never blocks the RunEngine and never raises into it: what it cannot read becomes a Problem that people see.
    catch_up: asks for what was missed of runs that had begun before anybody listened; without it those are left alone.
    """

    def __init__(self, session: Receiver, catch_up: CatchUp | None = None) -> None:
        self._session = session
        self._catch_up = catch_up
        self._lock = threading.RLock()
        """Documents come from the RunEngine, what was missed of them from another thread."""
        self._runs: dict[str, str] = {}
        """The run of every start, descriptor and resource that was seen, by uid."""
        self._open_runs: OrderedDict[str, _Run] = OrderedDict()
        self._late: list[LateRun] = []
        self._early: deque[Document] = deque(maxlen=MOST_EARLY)
        """Datums whose resource, which says whose they are, has not come yet."""
        self._ended: OrderedDict[str, set[str]] = OrderedDict()
        """What documents of runs that have ended name."""
        self._told_late = False
        self._ends_lost = 0
        """Stop documents that may still come of runs that were given up."""

    def __call__(self, name: str, document: dict[str, Any]) -> None:
        with self._lock:
            try:
                early = self._early_of(document) if name == "resource" else []
                call_all(self._take, [*single_pages(name, document), *early])
            except Exception as error:
                logger.exception("a document (%s) could not be used", name)
                self._report_failure(name, error)

    def learned(self, late: LateRun, record: RecordedRun) -> bool:
        """Take what is recorded of a late run; return whether that was news."""
        with self._lock:
            if not late.uid and (record.uid in self._open_runs or record.uid in self._ended):
                self._join(late, record.uid)
            if late.over:
                self._late = [each for each in self._late if each is not late]
                return False
            first = not late.uid
            try:
                documents = late.learn(record)
            except Exception as error:
                logger.exception("the record of a run that was joined late could not be used")
                self._report_failure("record in Tiled", error)
                return False
            if first:
                held = sum(name not in ("start", "stop") for name, _ in documents)
                logger.info("run %s was joined late: %d documents of it were made up for", record.uid, held)
            self._pass_on(late, documents)
            return bool(documents)

    def lost(self, late: LateRun, reason: str) -> None:
        """Do without the rest of a late run."""
        with self._lock:
            text = f"{LATE}, and {reason}"
            consequence = "what was missed is not in its slices" if late.uid else LOST
            self._session.submit(Problem(text=f"{text}: {consequence}", run_uid=late.uid))
            if late.uid:
                self._pass_on(late, late.give_up())
            else:
                # What still comes of it is nothing new, its end included, which does not name what else did.
                self._remember_ended("", late.references)
                self._ends_lost += not late.ending
            late.over = True
            self._late = [each for each in self._late if each is not late]

    def _early_of(self, resource: dict[str, Any]) -> list[Document]:
        """Return the datums that have waited for a resource, and hold them no longer."""
        early, others = [], deque(maxlen=MOST_EARLY)
        for name, datum in self._early:
            (early if datum.get("resource") == resource["uid"] else others).append((name, datum))
        self._early = others
        return early

    def _take(self, name: str, document: dict[str, Any]) -> None:
        if name == "start":
            self._told_late = False
            if document["uid"] not in self._open_runs:
                # One that has ended may be played again.
                self._ended.pop(document["uid"], None)
                self._start(document)
            return
        references = references_of(name, document)
        run_uid = next((self._runs[uid] for uid in references if uid in self._runs), None)
        if run_uid is None:
            self._take_unknown(name, document, references)
            return
        run = self._open_runs[run_uid]
        if self._late:
            self._forget_late(references)
        if name == "event":
            # A console sends a run from its beginning again when a service was away.
            if document.get("uid") in run.events:
                return
            run.events.add(document.get("uid"))
        if run.late is None:
            self._hand_on(name, document)
        else:
            self._pass_on(run.late, run.late.hear(name, document))

    def _take_unknown(self, name: str, document: dict[str, Any], references: list[str]) -> None:
        """Take a document of a run whose start was not seen."""
        if any(uid in ended for uid in references for ended in self._ended.values()):
            return
        late = next((each for each in self._late if not each.references.isdisjoint(references)), None)
        if late is None and name in ("datum", "datum_page"):
            self._early.append((name, document))
            return
        waiting = [each for each in self._late if not each.uid]
        if late is None and name == "stop" and len(waiting) == 1:
            # It names its run, and events do not; if it is another's, that run's record will tell.
            late = waiting[0]
        if late is None and name == "stop" and self._ends_lost:
            self._ends_lost -= 1
            return
        if late is None:
            if self._catch_up is None:
                if not self._told_late:
                    text = f"{LATE}, and there is no Tiled (tiled.uri) to ask for what was missed: {LOST}"
                    self._session.submit(Problem(text=text))
                self._told_late = True
                return
            late = LateRun()
            self._late.append(late)
            late.hear(name, document)
            self._catch_up.ask(late, self)
        else:
            late.hear(name, document)
        late.held_bytes += size_of(document)
        if late.held_bytes > MOST_HELD_BYTES:
            self.lost(late, f"more than {MOST_HELD_BYTES / 2**20:.0f} MB of it came before its record was found")

    def _join(self, late: LateRun, uid: str) -> None:
        """Give what was heard of a run, and could not be told to be of that one, to whoever follows it."""
        run = self._open_runs.get(uid)
        late.over = True
        # One that was sent again from its beginning has it all.
        if run is not None and run.late is not None:
            for name, document in late.held:
                self._pass_on(run.late, run.late.hear(name, document))

    def _forget_late(self, references: list[str]) -> None:
        """Ask no more for what was missed of a run that has been sent again from its beginning."""
        for late in self._late:
            if not late.uid and not late.references.isdisjoint(references):
                late.over = True
        self._late = [late for late in self._late if not late.over]

    def _start(self, document: dict[str, Any], late: LateRun | None = None) -> None:
        uid = document["uid"]
        self._runs[uid] = uid
        self._open_runs[uid] = _Run(intake=RunIntake(self._session), late=late)
        while len(self._open_runs) > MOST_OPEN:
            self._end_oldest()
        self._open_runs[uid].intake("start", document)

    def _end_oldest(self) -> None:
        uid = next(iter(self._open_runs))
        reason = f"more than {MOST_OPEN} runs are open, and this is the oldest of them"
        stop = {"uid": f"no-stop-{uid}", "run_start": uid, "time": 0.0, "exit_status": "fail", "reason": reason}
        self._hand_on("stop", stop)

    def _pass_on(self, late: LateRun, documents: list[Document]) -> None:
        for name, document in documents:
            try:
                if name == "start":
                    self._start(document, late)
                else:
                    self._hand_on(name, document)
            except Exception as error:
                logger.exception("a document (%s) could not be used", name)
                self._report_failure(name, error)
        if late.over:
            self._late = [each for each in self._late if each is not late]

    def _hand_on(self, name: str, document: dict[str, Any]) -> None:
        """Give a document of a known run to its intake, and forget the run when it stops."""
        if name in NAMED and document["uid"] in self._runs:
            return
        run_uid = next(self._runs[uid] for uid in references_of(name, document) if uid in self._runs)
        intake = self._open_runs[run_uid].intake
        if name == "stop":
            named = {uid for uid, run in self._runs.items() if run == run_uid}
            self._runs = {uid: run for uid, run in self._runs.items() if run != run_uid}
            del self._open_runs[run_uid]
            self._remember_ended(run_uid, named)
        elif name in NAMED:
            self._runs[document["uid"]] = run_uid
        intake(name, document)

    def _remember_ended(self, run_uid: str, references: set[str]) -> None:
        self._ended[run_uid or next(iter(references), "")] = references | {run_uid}
        while len(self._ended) > ENDED_KEPT:
            self._ended.popitem(last=False)

    def _report_failure(self, name: str, error: Exception) -> None:
        self._session.submit(Problem(text=f"a document ({name}) could not be used: {error}", severity="MAJOR"))


@dataclass(slots=True)
class _Run:
    """Remember of an open run who reads its documents, which events came, and what was missed of it."""

    intake: RunIntake
    late: LateRun | None = None
    events: set[Any] = field(default_factory=set)
