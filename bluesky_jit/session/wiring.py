"""Session: who feeds whom. It owns the threads; everything below it is synchronous."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

from bluesky_jit.messages import (
    Control,
    ImageKind,
    InlineFrames,
    Learning,
    Problem,
    RunMessage,
    RunStop,
    SessionStatus,
    SinkMessage,
    Update,
)
from bluesky_jit.session.axis_stage import AxisWatch
from bluesky_jit.session.controls import obey
from bluesky_jit.session.couplings import Inbox, Outbox
from bluesky_jit.session.health import Stage
from bluesky_jit.session.intake_stage import Intake
from bluesky_jit.session.learning.setup import require_learnable
from bluesky_jit.session.learning.stages import PairMaker, Training
from bluesky_jit.session.publish_stage import Publishing
from bluesky_jit.session.run import NORMALS, LiveRun
from bluesky_jit.session.slices_stage import Slices
from bluesky_jit.session.workers import Workers, available_cores
from bluesky_jit.settings import Settings, load_settings
from bluesky_jit.tomo.kernels import choose
from bluesky_jit.tomo.rehearsal import rehearse

logger = logging.getLogger(__name__)

STALE_S = 10.0
"""A run without a new frame for so long is shown as stale."""
JOIN_S = 5.0
LEARNING_STAGES = {"pairs", "trainer"}
"""Without them slices stay raw, and the session goes on."""
AXIS_STAGE = "axis"
"""Without it the axis stays where it is."""
RANK = {"NO_ALARM": 0, "MINOR": 1, "MAJOR": 2, "INVALID": 3}
"""A run's worst problem stays in the status; the log has them all."""


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
        self.stopping = threading.Event()
        self.run: LiveRun | None = None
        self.positions_mm = dict.fromkeys(NORMALS, 0.0)
        self.paused = False
        self.update_number = 0
        self.recon_time_ms = float("nan")
        self.workers: Workers | None = None
        """Threads lent to the kernels, from start to stop."""
        self._given_sinks = sinks
        self._sinks: list[Sink] = []
        self._latest: dict[tuple[str, ImageKind], Update] = {}
        self._problem: Problem | None = None
        self._version = 0
        self._last_frame_s = 0.0
        self._update_times: deque[float] = deque(maxlen=30)
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
        self._stages = [
            Stage(name, body, self.report, background=background) for name, (body, background) in loops.items()
        ]
        # Before there are sinks, which would have people wait for a session that still compiles.
        rehearse(choose(self.settings.tomo.kernel))
        self._sinks = list(self._given_sinks) if self._given_sinks is not None else default_sinks(self)
        self.workers = Workers(self.settings.tomo.workers or available_cores())
        for stage in self._stages:
            stage.start()
        return self

    def stop(self) -> None:
        """End the threads and close the sinks; the sinks write what they still hold."""
        self.stopping.set()
        with self._changed:
            self._changed.notify_all()
        for stage in self._stages:
            if not stage.join(JOIN_S):
                logger.warning("stage %s is still busy after %g s and is left behind", stage.name, JOIN_S)
        if self.workers is not None:
            self.workers.close()
        for message in self.outbox.take(0):
            self.to_sinks(message)
        for sink in self._sinks:
            sink.close()
        if self.run is not None:
            self.run.frames.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, message: RunMessage) -> None:
        """Take a message of a run; never blocks and never raises."""
        if not self.inbox.put(message) and isinstance(message, InlineFrames):
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
        """Tell people of a problem: once in the log, and in the status until the next run."""
        if problem == self._problem:
            return
        logger.log(logging.ERROR if problem.severity in ("MAJOR", "INVALID") else logging.WARNING, problem.text)
        if self._problem is None or RANK[problem.severity] >= RANK[self._problem.severity]:
            self._problem = problem

    # ── between the stages ───────────────────────────────────────────────────────────────────────────────────────────

    def open_run(self, run: LiveRun) -> None:
        """Make `run` the one that is worked on."""
        if self.run is not None:
            self.run.frames.close()
        self._problem = None
        self._latest = {}
        self._last_frame_s = time.time()
        self.run = run
        self.frames_changed()

    def close_run(self, run: LiveRun) -> None:
        """Tell the sinks, after its last slices, that a run is over."""
        if run.stop is not None:
            self.outbox.put(run.stop)
        with self._changed:
            run.closed = True
            self._changed.notify_all()

    def wait_until_closed(self, run: LiveRun, timeout_s: float) -> bool:
        """Wait for a run's last slices; return whether they were made in time."""
        with self._changed:
            return self._changed.wait_for(lambda: run.closed or self.stopping.is_set(), timeout_s)

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

    def wait_until_settled(self, run: LiveRun, timeout_s: float) -> None:
        """Wait until a run's axis moves no more and its projections are weighted for it, if that will be."""
        if any(stage.lost for stage in self._stages if stage.name == AXIS_STAGE):
            return
        with self._changed:
            self._changed.wait_for(lambda: run.settled or self.stopping.is_set(), timeout_s)

    def frames_changed(self) -> None:
        """Wake the slices: there are new projections."""
        self._last_frame_s = time.time()
        self.wake()

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
            self._latest[update.slice_name, update.kind] = update
            if update.kind == "raw" and update.slice_name == "XY":
                self._update_times.append(update.made_time_s)
            self._changed.notify_all()
        self.outbox.put(update)

    def to_sinks(self, message: SinkMessage) -> None:
        """Give one message to every sink; a sink that fails is reported and does not harm the others."""
        if isinstance(message, RunStop):
            # The run's last figures belong to its record.
            self.to_sinks(self.status)
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

    def latest(self, slice_name: str, kind: ImageKind) -> Update | None:
        """Return the newest image of a slice (XY, XZ, YZ), or None before there is one."""
        return self._latest.get((slice_name, kind))

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
        """Return what the session is doing, and how well."""
        run, problem, now = self.run, self._problem, time.time()
        common = {
            "time_s": now,
            "update": self.update_number,
            "message": problem.text if problem else "",
            "severity": problem.severity if problem else "NO_ALARM",
        }
        lost = {stage.name for stage in self._stages if stage.lost}
        failed = bool(lost - LEARNING_STAGES - {AXIS_STAGE})
        if run is None:
            return SessionStatus(state="failed" if failed else "idle", learning=self._no_learning(), **common)
        ledger = run.frames.ledger
        reconstruction = run.reconstruction
        found = reconstruction.found if reconstruction else None
        latest = self._latest.get(("XY", "raw"))
        projections = ledger.count("projection")
        state = "idle" if run.closed else "stale" if now - self._last_frame_s > STALE_S else "running"
        return SessionStatus(
            state="failed" if failed else state,
            run_uid=run.uid,
            scan_id=run.start.scan_id,
            frames_received=ledger.received,
            frames_lost=run.frames_lost + self.inbox.refused(run.uid),
            darks=ledger.count("dark"),
            flats=ledger.count("flat"),
            projections=projections,
            turns=projections / run.angles_per_turn if run.geometry else 0.0,
            window=reconstruction.window_count if reconstruction else 0,
            updates_per_s=_rate(self._update_times, now),
            recon_time_ms=self.recon_time_ms,
            latency_ms=latest.latency_ms if latest else float("nan"),
            clipped_fraction=reconstruction.clipped_fraction if reconstruction else 0.0,
            zingers_per_frame=found.zingers_per_frame if found else 0.0,
            beam_level=found.beam.level if found and found.beam else float("nan"),
            axis_offset_mm=reconstruction.geometry.axis_offset_mm if reconstruction else 0.0,
            axis_estimate_mm=run.axis.offset_mm if run.axis else float("nan"),
            axis_column=run.axis.column if run.axis else float("nan"),
            axis_confidence=run.axis.confidence if run.axis else 0.0,
            axis_reason=run.axis.reason if run.axis else "",
            angle_source=run.angle_source,
            learning=run.learning(paused=self.paused)
            if run.learner and not self.learning_is_lost
            else self._no_learning(run.learning_problem),
            **common,
        )

    @property
    def learning_is_lost(self) -> bool:
        """Tell whether a stage that learns has failed for good."""
        return any(stage.lost for stage in self._stages if stage.name in LEARNING_STAGES)

    def _no_learning(self, problem: str = "") -> Learning:
        reason = problem or ("waiting for projections" if self.settings.learn.enabled else "learning is switched off")
        if self.learning_is_lost:
            reason = "learning has failed: see the log, and restart the service"
        return Learning(reason=reason, preset=self.settings.learn.preset, paused=self.paused)


def _rate(times: deque[float], now: float, span_s: float = 3.0) -> float:
    recent = [time_s for time_s in list(times) if now - time_s < span_s]
    return len(recent) / span_s


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
