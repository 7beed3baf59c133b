"""Session: who feeds whom. It owns the threads; everything below it is synchronous."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

from bluesky_jit.messages import (
    Control,
    ImageKind,
    InlineFrames,
    Problem,
    RunMessage,
    RunStop,
    SessionStatus,
    SinkMessage,
    Update,
)
from bluesky_jit.session.axis_stage import AxisWatch
from bluesky_jit.session.controls import obey
from bluesky_jit.session.couplings import Backlog, Inbox, Outbox
from bluesky_jit.session.health import Stage
from bluesky_jit.session.intake_stage import Intake
from bluesky_jit.session.learning.setup import require_learnable
from bluesky_jit.session.learning.stages import PairMaker, Training
from bluesky_jit.session.memory import give_back_memory
from bluesky_jit.session.problems import SESSION, Problems
from bluesky_jit.session.publish_stage import Publishing
from bluesky_jit.session.run import NORMALS, LiveRun
from bluesky_jit.session.runs import Runs
from bluesky_jit.session.shedding import Shedding
from bluesky_jit.session.slices_stage import Slices
from bluesky_jit.session.status import status_of
from bluesky_jit.session.taps import Taps
from bluesky_jit.session.workers import Workers, available_cores
from bluesky_jit.settings import Settings, load_settings
from bluesky_jit.tomo.kernels import choose
from bluesky_jit.tomo.rehearsal import rehearse

logger = logging.getLogger(__name__)

JOIN_S = 5.0
LEARNING_STAGES = {"pairs", "trainer"}
"""Without them slices stay raw, and the session goes on."""
AXIS_STAGE = "axis"
"""Without it the axis stays where it is."""


class Sink(Protocol):
    """Hand results to the world; `publish` does not keep the caller waiting."""

    def publish(self, message: SinkMessage) -> None: ...

    def close(self) -> object: ...


class Session:
    """Reconstruct, learn and publish while runs come in.

    >>> with Session() as session:
    ...     RE.subscribe(JITCallback(session))

    sinks: where results go; by default what the settings ask for (EPICS, Tiled).
    """

    def __init__(self, settings: Settings | None = None, *, sinks: Sequence[Sink] | None = None) -> None:
        self.settings = settings or load_settings()
        self.inbox = Inbox(self.settings.intake.queue_frames)
        self.outbox = Outbox()
        self.shedding = Shedding()
        self.backlog = Backlog()
        """Frames that wait to be used: written by intake."""
        self.stopping = threading.Event()
        self.problems = Problems()
        self.positions_mm = dict.fromkeys(NORMALS, 0.0)
        self.paused = False
        self.update_number = 0
        self.recon_time_ms = float("nan")
        self.workers: Workers | None = None
        """Threads lent to the kernels, from start to stop."""
        self._given_sinks = sinks
        self._sinks: list[Sink] = []
        self._runs = Runs()
        self.taps = Taps(self.settings, self.submit, self.report)
        self._ended: dict[str, LiveRun] = {}
        """Runs whose end waits to be told to the sinks."""
        self._latest: dict[tuple[str, str, ImageKind], Update] = {}
        self._version = 0
        self.update_times: deque[float] = deque(maxlen=30)
        self._changed = threading.Condition()
        self._stages: list[Stage] = []

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> Self:
        """Start the sinks and the threads; settings that cannot work raise before anything is started."""
        if self.settings.learn.enabled:
            require_learnable(self.settings.learn)
        loops: dict[str, tuple[Callable[[], None], bool]] = {
            "intake": (Intake(self).loop, False),
            "slices": (Slices(self).loop, False),
            "publish": (Publishing(self).loop, False),
            AXIS_STAGE: (AxisWatch(self).loop, True),
        }
        if self.settings.learn.enabled:
            loops |= {"pairs": (PairMaker(self).loop, True), "trainer": (Training(self).loop, True)}
        when_lost = {"intake": self._end_without_intake}
        self._stages = [
            Stage(name, body, self.report, background=background, when_lost=when_lost.get(name, lambda: None))
            for name, (body, background) in loops.items()
        ]
        # Before there are sinks, which would have people wait for a session that still compiles.
        rehearse(choose(self.settings.tomo.kernel))
        self._sinks = list(self._given_sinks) if self._given_sinks is not None else default_sinks(self)
        self.workers = Workers(self.settings.tomo.workers or available_cores())
        for stage in self._stages:
            stage.start()
        self.taps.start()
        return self

    def stop(self) -> None:
        """End the threads and close the sinks; the sinks write what they still hold."""
        self.stopping.set()
        self.taps.close()
        with self._changed:
            self._changed.notify_all()
        for stage in self._stages:
            if not stage.join(JOIN_S):
                logger.warning("stage %s is still busy after %g s and is left behind", stage.name, JOIN_S)
        if self.workers is not None:
            self.workers.close()
        self._end_runs("abort", "the session ended")
        for message in self.outbox.take(0):
            self.to_sinks(message)
        for sink in self._sinks:
            sink.close()
        for run in self.runs.values():
            run.frames.close()

    def _end_runs(self, exit_status: str, reason: str) -> None:
        """Give also the runs that go on their end: nobody is to wait for more of them."""
        for run in self.runs.values():
            run.stop = run.stop or RunStop(run_uid=run.uid, time_s=time.time(), exit_status=exit_status, reason=reason)
            self.close_run(run)

    def _end_without_intake(self) -> None:
        self.inbox.close()
        self._end_runs("fail", "stage intake was lost: nobody reads frames any more")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, message: RunMessage) -> None:
        """Take a message of a run; never blocks and never raises."""
        fits = self.inbox.put(message)
        self.taps.hear(message)
        if not fits and isinstance(message, InlineFrames) and not message.tapped:
            self.report(
                Problem(
                    text="frames come faster than they can be used: those that do not fit the queue are left out of "
                    "the slices and counted as lost; the run's own records have them (raise intake.queue_frames, or "
                    "write frames to files)",
                    severity="MAJOR",
                    run_uid=message.run_uid,
                )
            )

    def control(self, control: Control) -> None:
        """Do what a control asks for; raise ValueError, which is also reported, when it cannot be done."""
        try:
            obey(self, control)
        except ValueError as error:
            self.report(Problem(text=str(error)))
            raise

    def report(self, problem: Problem) -> None:
        """Tell people of a problem: once in the log, and in the status for as long as it concerns what is shown."""
        self.problems.report(problem)

    # ── between the stages ───────────────────────────────────────────────────────────────────────────────────────────

    def open_run(self, run: LiveRun) -> None:
        """Take in a run that has begun."""
        # What belonged to no run, or to one that has ended, is told no longer.
        self.problems.keep(self.runs)
        with self._showing():
            self._runs.add(run)

    def feed_run(self, run: LiveRun) -> None:
        """Say that a run has brought frames."""
        run.fed_s = time.monotonic()
        with self._showing():
            self._runs.fed(run)
        self.wake()

    def close_run(self, run: LiveRun) -> None:
        """Tell the sinks, after its last slices, that a run is over."""
        with self._changed:
            if run.closed:
                return
            run.closed = True
            if run.stop is not None:
                self._ended[run.uid] = run
                self.outbox.put(run.stop)
            self._changed.notify_all()

    def forget_run(self, run: LiveRun) -> None:
        """Let go of a run that is closed."""
        run.frames.close()
        with self._showing():
            self._runs.remove(run)
        self.problems.keep({SESSION, *self.runs, self.run.uid if self.run else SESSION})
        # Of the run before it, which was on show until this one brought frames.
        give_back_memory()

    @contextmanager
    def _showing(self) -> Iterator[None]:
        """Tell everybody if another run is on show after this."""
        before = self.run
        yield
        if self.run is before:
            return
        with self._changed:
            kept = {*self.runs, self.run.uid if self.run else ""}
            self._latest = {key: update for key, update in self._latest.items() if key[0] in kept}
            self.update_times.clear()
        self.outbox.put(self.status)
        self.wake()

    def settle_axis(self, run: LiveRun) -> None:
        """Say that a run's axis will not move any more by itself."""
        with self._changed:
            run.axis_settled = True
            self._changed.notify_all()

    def settle_run(self, run: LiveRun) -> None:
        """Say that a run's projections are weighted for its last axis."""
        with self._changed:
            run.settled = True
            self._changed.notify_all()

    def is_settled(self, run: LiveRun) -> bool:
        """Tell whether a run's axis moves no more and its projections are weighted for it, as far as that will be."""
        return run.settled or self.is_lost(AXIS_STAGE)

    def is_lost(self, name: str) -> bool:
        """Tell whether a stage has failed for good."""
        return any(stage.lost for stage in self._stages if stage.name == name)

    def wake(self) -> None:
        """Wake the slices: there is something else to show."""
        with self._changed:
            self._version += 1
            self._changed.notify_all()

    def wait_for_frames(self, seen: int, timeout_s: float) -> int:
        """Return the version of what there is to show, waiting a little for one that is not `seen`."""
        with self._changed:
            if self._version == seen:
                self._changed.wait(timeout_s)
            return self._version

    def published(self, update: Update) -> None:
        """Keep an update as the latest and hand it on."""
        with self._changed:
            self._latest[update.run_uid, update.slice_name, update.kind] = update
            if update.kind == "raw" and update.slice_name == "XY" and self.run and update.run_uid == self.run.uid:
                self.update_times.append(update.made_time_s)
            self._changed.notify_all()
        self.outbox.put(update)

    def to_sinks(self, message: SinkMessage) -> None:
        """Give one message to every sink; a sink that fails is reported and does not harm the others."""
        if isinstance(message, RunStop):
            # The run's last figures belong to its record.
            run = self._ended.pop(message.run_uid)
            self.to_sinks(status_of(self, run, on_show=run is self.run))
        for sink in self._sinks:
            try:
                sink.publish(message)
            except Exception as error:
                logger.exception("%s could not publish", type(sink).__name__)
                self.report(Problem(text=f"{type(sink).__name__} could not publish: {error}", severity="MAJOR"))

    # ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def sinks(self) -> tuple[Sink, ...]:
        """Return where results go."""
        return tuple(self._sinks)

    @property
    def run(self) -> LiveRun | None:
        """Return the run on show: the newest that brings frames."""
        return self._runs.shown

    @property
    def runs(self) -> dict[str, LiveRun]:
        """Return the open runs by uid, in the order in which they began."""
        return self._runs.open

    def latest(self, slice_name: str, kind: ImageKind) -> Update | None:
        """Return the newest image of a slice (XY, XZ, YZ) of the run on show, or None before there is one."""
        run = self.run
        return self.latest_of(run, slice_name, kind) if run else None

    def latest_of(self, run: LiveRun, slice_name: str, kind: ImageKind) -> Update | None:
        """Return the newest image of a slice of a run, or None before there is one."""
        return self._latest.get((run.uid, slice_name, kind))

    def wait_for(self, condition: Callable[[SessionStatus], bool], timeout_s: float) -> bool:
        """Wait until the status fulfils a condition; return whether it did in time."""
        until = time.monotonic() + timeout_s
        with self._changed:
            while not condition(self.status):
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 0.1))
        return True

    @property
    def status(self) -> SessionStatus:
        """Return what the session is doing, and how well, with the figures of the run on show."""
        return status_of(self, self.run)

    @property
    def has_failed(self) -> bool:
        """Tell whether a stage that slices need has failed for good."""
        return any(stage.lost for stage in self._stages if stage.name not in LEARNING_STAGES | {AXIS_STAGE})

    @property
    def learning_is_lost(self) -> bool:
        """Tell whether a stage that learns has failed for good."""
        return any(stage.lost for stage in self._stages if stage.name in LEARNING_STAGES)


def default_sinks(session: Session) -> list[Sink]:
    """Make the sinks that the settings ask for; when one cannot be made, the others are closed again."""
    settings = session.settings
    makers: list[Callable[[], Sink]] = []
    if settings.epics.enabled:
        from bluesky_jit.publish.ca import CAServer
        from bluesky_jit.publish.pva import PVAServer

        makers += [lambda: CAServer(settings, session.control), lambda: PVAServer(settings, session.control)]
    if settings.tiled.uri:
        from bluesky_jit.publish.tiled import TiledSink

        makers.append(lambda: TiledSink(settings.tiled, report=session.report))
    sinks: list[Sink] = []
    try:
        for make in makers:
            sinks.append(make())
    except BaseException:
        for sink in sinks:
            sink.close()
        raise
    return sinks
