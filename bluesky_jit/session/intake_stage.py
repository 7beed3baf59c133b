"""The intake loop: messages in order, each to its own run, whose frames are read and pushed into its reconstruction."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from bluesky_jit.messages import Problem, RunMessage, RunStart, RunStop
from bluesky_jit.session.couplings import Backlog, Refused
from bluesky_jit.session.feed import Feed, frames_of
from bluesky_jit.session.frame_queues import Waiting
from bluesky_jit.session.kept_flats import RUNS_KEPT, KeptFlats
from bluesky_jit.session.run import LiveRun

if TYPE_CHECKING:
    from bluesky_jit.session.wiring import Session

logger = logging.getLogger(__name__)

RETRY_S = 0.02
"""Pause before asking a file again for rows that it does not hold yet; a file plugin flushes every 20 to 100 ms."""
IDLE_S = 0.05
LAST_SLICES_S = 5.0
"""How long the next run waits for the last slices of the one before."""
MOST_OPEN = 4
"""Runs that may go on at a time: each has a window of projections in memory, half of what is free at most. Two are
common (an outer run, or darks and flats beside projections); more are runs whose stop document was lost."""
BEHIND = (
    "frames wait to be used: until they are, slices are updated less often, and then training waits (Shed: and Backlog "
    "count); if it lasts, take frames more slowly or of fewer pixels, show smaller slices, or give more cores"
)
HELD_BACK = 0.25
"""Part of the inbox' room for frames from events that those of a run that waits may take: a burst has the rest."""
ENDED_KEPT = 64
"""Runs of which it is known that they have ended, for frames that come too late."""


class Intake:
    """Give messages to their runs, and let each run read its frames in turn."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._feeds: dict[str, Feed] = {}
        """The open runs, and the one on show although it has ended: its slices still follow what people put."""
        self._flats = KeptFlats()
        self._ended: dict[str, str] = {}
        """Why runs have ended, by uid."""
        self._late: set[str] = set()
        """Runs whose frames have come too late, or too early, and it was told."""

    def loop(self) -> None:
        while not self._session.stopping.is_set():
            message = self._session.inbox.take(self._pause_s())
            while message is not None:
                self.handle(message)
                message = self._session.inbox.take(0)
            self.step()

    def _pause_s(self) -> float:
        """Return how long to wait for a message: not at all while there are frames to be read."""
        feeds = self._feeds.values()
        if any(feed.has_work and not self._is_held_back(feed) for feed in feeds):
            return 0.0
        return RETRY_S if any(feed.is_waiting for feed in feeds) else IDLE_S

    def handle(self, message: RunMessage | Refused) -> None:
        """Give a message to its run."""
        session = self._session
        if isinstance(message, RunStart):
            self._forget_closed()
            self._open(message)
        elif isinstance(message, Problem):
            session.report(message)
        else:
            feed = self._feeds.get(message.run_uid)
            if isinstance(message, RunStop):
                if feed is not None and feed.run.stop is None:
                    feed.end(message)
            elif feed is None or feed.run.closed:
                self._leave_out(message, feed.run if feed else None)
            else:
                feed.take(message)

    def step(self) -> None:
        """Let every run read the next of its frames, and end those that are over."""
        self._look_at_backlog()
        for feed in tuple(self._feeds.values()):
            if not self._is_held_back(feed):
                feed.read()
            self._watch(feed)
            self._end_when_over(feed)
        self._forget_closed()

    def _look_at_backlog(self) -> None:
        """Measure how far behind the frames this is, and leave other things undone where that is too far."""
        session, feeds = self._session, self._feeds.values()
        lags = {feed.lag_s: feed for feed in feeds if feed.has_work and not self._is_held_back(feed)}
        lag_s = max([session.inbox.age_s, *lags])
        session.backlog = Backlog(frames=sum(feed.backlog for feed in feeds), lag_s=lag_s)
        if session.shedding.look(lag_s, session.inbox.fill):
            behind = lags[max(lags)].run if lags else session.run
            session.report(Problem(text=BEHIND, run_uid=behind.uid if behind else ""))

    def _open(self, start: RunStart) -> None:
        """Open a run, with the darks and flats of the run that it names."""
        session, lender = self._session, start.tomo.get("dark_flat_uid")
        if start.run_uid in self._feeds or start.run_uid in self._ended:
            logger.warning("run %s begins a second time: that is left alone", start.run_uid)
            return
        self._make_room()
        dark_flat = self._flats.of(str(lender))
        run = LiveRun(start, session.settings, dark_flat=dark_flat, pool=session.workers)
        self._feeds[run.uid] = Feed(session, run, self._flats)
        session.open_run(run)
        if lender and dark_flat is None and str(lender) not in self._feeds:
            session.report(
                Problem(
                    text=f"the darks and flats of run {str(lender)[:8]} are wanted, but this session has not seen them "
                    f"among its last {RUNS_KEPT} runs: take flats in this run",
                    run_uid=start.run_uid,
                )
            )

    def _make_room(self) -> None:
        """End the run that has been silent for longest when there are as many as may go on at a time."""
        going_on = [feed for feed in self._feeds.values() if feed.run.stop is None]
        if len(going_on) < MOST_OPEN:
            return
        oldest = min(going_on, key=lambda feed: feed.heard_s)
        silent_s = time.monotonic() - oldest.heard_s
        self._give_up(
            oldest, f"another run began while {MOST_OPEN} went on, and this one was silent for {silent_s:.0f} s"
        )

    def _watch(self, feed: Feed) -> None:
        """End a run of which nothing has been heard for so long that its stop document will hardly come."""
        watchdog_s = self._session.settings.intake.watchdog_s
        if feed.run.stop is None and not feed.has_work and time.monotonic() - feed.heard_s > watchdog_s:
            self._give_up(feed, f"nothing came of it for {watchdog_s:g} s (intake.watchdog_s), and no stop document")

    def _give_up(self, feed: Feed, reason: str) -> None:
        """End a run whose stop document has not come."""
        stop = RunStop(run_uid=feed.run.uid, time_s=time.time(), exit_status="fail", reason=reason)
        # As with a stop document: frames that come from now on are no longer this run's.
        self._session.taps.hear(stop)
        feed.end(stop)

    def _is_held_back(self, feed: Feed) -> bool:
        """Tell whether a run's first frames wait until those that ended before it began have their last slices.

        They would share memory and cores with a run that is over, and people would not see how it ended. A run that
        only waits for a file has neither, and frames that come in events have room for a while only.
        """
        if feed.run.reconstruction is not None or self._session.inbox.fill > HELD_BACK:
            return False
        for other in self._feeds.values():
            if other is feed:
                return False
            only_waits = other.is_waiting and not other.has_work
            if other.run.stop is not None and other.run.uid not in self._ended and not only_waits:
                return True
        return False

    def _end_when_over(self, feed: Feed) -> None:
        """End a run without its last slices where nobody makes them, or not in time."""
        session, run = self._session, feed.run
        if not run.drained or run.closed:
            return
        if session.is_lost("slices"):
            session.close_run(run)
        elif time.monotonic() - run.drained_s > LAST_SLICES_S and any(map(self._is_held_back, self._feeds.values())):
            logger.warning("the last slices of run %s were not made within %g s", run.uid, LAST_SLICES_S)
            session.close_run(run)

    def _forget_closed(self) -> None:
        """Let go of runs that have their last slices; the one on show goes on to follow what people put."""
        session = self._session
        for feed in tuple(self._feeds.values()):
            run = feed.run
            if run.closed and run.uid in session.runs:
                self._keep_dark_flat(run)
                self._ended[run.uid] = run.stop.reason if run.stop else ""
                for message in feed.clear():
                    self._leave_out(message, run)
                session.forget_run(run)
            if run.closed and run is not session.run:
                del self._feeds[run.uid]
        while len(self._ended) > ENDED_KEPT:
            del self._ended[next(iter(self._ended))]

    def _keep_dark_flat(self, run: LiveRun) -> None:
        """Keep a run's darks and flats for later runs that name it."""
        if run.reconstruction is not None and run.reconstruction.ready:
            self._flats.keep(run.start, run.reconstruction.dark_flat)
            for feed in self._feeds.values():
                if feed.run.start.tomo.get("dark_flat_uid") == run.uid and not feed.run.closed:
                    feed.borrow(run.reconstruction.dark_flat)

    def _leave_out(self, message: Waiting, run: LiveRun | None) -> None:
        """Say that frames came for a run that is not open, and count them where it is still on show."""
        self._session.inbox.release(message)
        uid = message.run_uid
        if run is not None:
            run.unusable_frames += frames_of(message)
        if uid in self._late:
            return
        if len(self._late) > ENDED_KEPT:
            self._late.clear()
        self._late.add(uid)
        text = f"frames of run {uid[:8]} came, whose start was not seen"
        if uid in self._ended:
            why = self._ended[uid]
            text = f"frames of run {uid[:8]} came after it had ended" + (f" ({why})" if why else "")
        self._session.report(Problem(text=f"{text}: they are not in the slices; its own records have them"))
