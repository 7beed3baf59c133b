"""The intake loop: messages in order, their frames read, pushed into the reconstruction."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from bluesky_jit.intake.angle_unit import WrongAngleUnit
from bluesky_jit.intake.frames import FramesNotReady, UnusableCounts, part_of_message, split_message
from bluesky_jit.messages import AssetFrames, FrameMessage, Problem, RunMessage, RunOpened, RunStart, RunStop
from bluesky_jit.session.run import LiveRun
from bluesky_jit.tomo.corrections.darkflat import DarkFlat
from bluesky_jit.tomo.reconstructor import Reconstructor

if TYPE_CHECKING:
    from bluesky_jit.session.wiring import Session

logger = logging.getLogger(__name__)

FRAMES_AT_ONCE = 32
"""Frames read from a file at a time: a long sweep never fills the memory."""
RETRY_S = 0.02
"""Pause before asking a file again for rows that it does not hold yet; a file plugin flushes every 20 to 100 ms."""
IDLE_S = 0.05
RUNS_KEPT = 8
"""Runs whose darks and flats can be borrowed; two float32 images of the detector each."""
LAST_SLICES_S = 5.0
"""How long the next run waits for the last slices of the one before."""


class Intake:
    """Take messages in order, read their frames and push them into the reconstruction."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: deque[FrameMessage] = deque()
        self._dark_flats: dict[str, DarkFlat] = {}
        self._ended_s = 0.0
        self._waiting_since = time.monotonic()

    def loop(self) -> None:
        while not self._session.stopping.is_set():
            message = self._session.inbox.take(RETRY_S if self._waiting else IDLE_S)
            if message is not None:
                self.handle(message)
            self._read_waiting()

    def handle(self, message: RunMessage) -> None:
        session = self._session
        if isinstance(message, RunStart):
            if session.run is not None:
                self._finish(session.run)
                self._keep_dark_flat(session.run)
            self._open(message)
        elif isinstance(message, RunStop):
            if session.run is not None and session.run.uid == message.run_uid:
                self._end(session.run, message)
        elif isinstance(message, Problem):
            session.report(message)
        elif session.run is None or message.run_uid != session.run.uid:
            text = f"frames of run {message.run_uid[:8]} came while another run is worked on: its own records have them"
            session.report(Problem(text=text, severity="MAJOR"))
        else:
            if not self._waiting:
                self._waiting_since = time.monotonic()
            self._waiting.extend(split_message(message, FRAMES_AT_ONCE))

    def _open(self, start: RunStart) -> None:
        """Open a run, with the darks and flats of the run that it names."""
        session, lender = self._session, start.tomo.get("dark_flat_uid")
        dark_flat = self._dark_flats.get(str(lender))
        session.open_run(LiveRun(start, session.settings, dark_flat=dark_flat, pool=session.workers))
        if lender and dark_flat is None:
            session.report(
                Problem(
                    text=f"the darks and flats of run {str(lender)[:8]} are wanted, but this session has not seen them "
                    f"among its last {RUNS_KEPT} runs: take flats in this run",
                    run_uid=start.run_uid,
                )
            )

    def _keep_dark_flat(self, run: LiveRun) -> None:
        """Keep a run's darks and flats for later runs that name it."""
        if run.reconstruction is not None and run.reconstruction.ready:
            self._dark_flats[run.uid] = run.reconstruction.dark_flat
        while len(self._dark_flats) > RUNS_KEPT:
            del self._dark_flats[next(iter(self._dark_flats))]

    def _finish(self, run: LiveRun) -> None:
        """Let a run have its frames, its last slices and its end before another one takes its place."""
        if run.stop is None:
            reason = "the next run began and no stop document had come"
            self._end(run, RunStop(run_uid=run.uid, time_s=time.time(), exit_status="fail", reason=reason))
        self._read_waiting()
        while not run.drained and not self._session.stopping.wait(RETRY_S):
            self._read_waiting()
        until = time.monotonic() + LAST_SLICES_S
        while not self._session.wait_until_closed(run, RETRY_S):
            # Its axis may move, and the last slices wait until that has taken effect.
            self._read_waiting()
            if time.monotonic() > until:
                logger.warning("the last slices of run %s were not made within %g s", run.uid, LAST_SLICES_S)
                self._session.close_run(run)

    def _end(self, run: LiveRun, stop: RunStop) -> None:
        self._ended_s = time.monotonic()
        run.stop = stop

    def _read_waiting(self) -> None:
        run = self._session.run
        if run is None:
            return
        while self._waiting and not self._session.stopping.is_set():
            message = self._waiting.popleft()
            try:
                self._push(run, message)
            except FramesNotReady as reason:
                if not self._patience_is_over(run):
                    self._waiting.appendleft(message)
                    self._report_waiting(run, reason)
                    break
                self._give_up(run, message, reason)
            self._waiting_since = time.monotonic()
        if self._waiting:
            return
        # Before it settles: what moves later takes effect the next time.
        last = run.axis_settled
        if run.reconstruction is not None and (self._session.inbox.empty or run.stop is not None):
            self._settle(run, run.reconstruction)
        if last and not run.settled:
            self._session.settle_run(run)
        if run.stop is not None and not run.drained:
            self._check_frames(run)
            run.drained = True
            self._session.frames_changed()

    def _settle(self, run: LiveRun, reconstruction: Reconstructor) -> None:
        """Let late darks and flats take effect, and say what limits the slices."""
        try:
            if reconstruction.settle(drained=run.stop is not None):
                self._session.frames_changed()
        except (ValueError, MemoryError) as error:
            # Slices stay as they were, and it is tried again.
            self._session.report(Problem(text=str(error), severity="MAJOR", run_uid=run.uid))
        self._report_limits(run)

    def _report_waiting(self, run: LiveRun, reason: FramesNotReady) -> None:
        """Say during the run already that its frames do not appear."""
        patience_s = self._session.settings.intake.file_patience_s
        if time.monotonic() - self._waiting_since > patience_s:
            text = f"no frame could be read for {patience_s:g} s: {reason}; going on trying until the run has ended"
            self._session.report(Problem(text=text, run_uid=run.uid))
            self._waiting_since = time.monotonic()

    def _patience_is_over(self, run: LiveRun) -> bool:
        return run.stop is not None and time.monotonic() - self._ended_s > self._session.settings.intake.file_patience_s

    def _push(self, run: LiveRun, message: FrameMessage) -> None:
        n = _frames_of(message)
        try:
            if isinstance(message, AssetFrames) and not message.image.swmr and run.stop is None:
                # Rows of a file that is being written without SWMR may read as zeros.
                raise FramesNotReady(f"{message.image.uri} is written without SWMR: it is read when the run has ended")
            block = run.frames.frames(message)
            if run.geometry is None:
                self._prepare(run, (block.counts.shape[1], block.counts.shape[2]))
            run.push(block)
        except FramesNotReady:
            raise
        except (UnusableCounts, WrongAngleUnit) as error:
            run.unusable_frames += n
            if error.reason not in run.told:
                run.told.add(error.reason)
                self._session.report(Problem(text=str(error), severity="MAJOR", run_uid=run.uid))
            return
        except Exception as error:
            # Whatever a file or a run's metadata holds, the next frames and the next run come.
            text = str(error)
            if not isinstance(error, ValueError):
                logger.exception("frames of run %s could not be used", run.uid)
                text = f"{n} frames could not be used ({type(error).__name__}: {error}): they were left out"
            run.unusable_frames += n
            self._session.report(Problem(text=text, severity="MAJOR", run_uid=run.uid))
            return
        self._report_arrivals(run)
        self._session.frames_changed()

    def _prepare(self, run: LiveRun, frame_shape: tuple[int, int]) -> None:
        """Make what reconstructs a run, tell the sinks, and then what learns: slices need no learning."""
        session = self._session
        if run.decline_loan(frame_shape):
            text = "the darks and flats of the run that was named are of another size: take flats in this run"
            session.report(Problem(text=text, run_uid=run.uid))
        run.prepare(frame_shape)
        if run.geometry is not None:
            session.outbox.put(
                RunOpened(
                    start=run.start,
                    geometry=run.geometry,
                    settings=session.settings.to_dict(),
                    corrections=run.corrections.to_metadata(),
                )
            )
        if session.settings.learn.enabled:
            try:
                run.start_learning(session.report)
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                # Beside settings that do not fit: folders, a home that nobody has, and what is too large.
                run.learning_problem = f"nothing is learned here, slices stay raw: {str(error) or 'no memory'}"
                session.report(Problem(text=run.learning_problem, run_uid=run.uid))

    def _report_arrivals(self, run: LiveRun) -> None:
        arrivals = run.frames.last_arrivals
        if arrivals is not None and arrivals.missing:
            self._session.report(
                Problem(text=f"frames {_ids(arrivals.missing)} did not come from the detector", run_uid=run.uid)
            )
        if arrivals is not None and arrivals.restarted:
            text = "the detector's frame counter was set anew: frames are counted on from there"
            self._session.report(Problem(text=text, run_uid=run.uid))
        if arrivals is not None and arrivals.duplicates:
            self._session.report(
                Problem(
                    text=f"frames {_ids(arrivals.duplicates)} came twice: the repeats were left out", run_uid=run.uid
                )
            )

    def _report_limits(self, run: LiveRun) -> None:
        """Say, once each, what limits the slices that can be made now."""
        if run.reconstruction is None or not (run.reconstruction.complete or run.stop is not None):
            return
        for text in run.reconstruction.warnings():
            if text not in run.told:
                run.told.add(text)
                self._session.report(Problem(text=text, run_uid=run.uid))

    def _give_up(self, run: LiveRun, message: FrameMessage, reason: FramesNotReady) -> None:
        """Take the rows that a file does hold, now that the rest will not come any more."""
        n, available = _frames_of(message), reason.available
        while available > 0:
            try:
                self._push(run, part_of_message(message, 0, available))
                break
            except FramesNotReady as less:
                # Another column (angle, id, time) is shorter than the image's.
                available = max(0, min(less.available, available - 1))
        run.unusable_frames += n - available
        self._session.report(
            Problem(
                text=f"{run.unusable_frames} frames could not be read: {reason}; they may still be in the file",
                severity="MAJOR",
                run_uid=run.uid,
            )
        )

    def _check_frames(self, run: LiveRun) -> None:
        """Say in one sentence why a run that has ended gave no slices, or not of all its frames."""
        ledger = run.frames.ledger
        if run.stop is not None and run.stop.exit_status != "success":
            text = f"run {run.uid[:8]} ended as {run.stop.exit_status!r} after {ledger.count('projection')} projections"
            self._session.report(Problem(text=f"{text}: {run.stop.reason or 'no reason given'}", run_uid=run.uid))
            return
        if run.geometry is not None and ledger.count("projection") and run.flats == "none":
            self._session.report(_no_flats(run))
        never_came = ledger.expect("projection", run.start.expected_projections or 0)
        if never_came:
            text = f"{never_came} of {run.start.expected_projections} projections of run {run.uid[:8]} never came"
            self._session.report(Problem(text=f"{text}: they are not in the slices", run_uid=run.uid))


def _frames_of(message: FrameMessage) -> int:
    return message.image.count if isinstance(message, AssetFrames) else len(message.counts)


def _no_flats(run: LiveRun) -> Problem:
    return Problem(
        text=f"run {run.uid[:8]} has no flats, so its slices cannot be made; its raw frames are safe: take flats in "
        "the same run (tomo_scan(flats=20))",
        severity="MAJOR",
        run_uid=run.uid,
    )


def _ids(numbers: tuple[int, ...], most: int = 5) -> str:
    shown = ", ".join(str(number) for number in numbers[:most])
    return shown if len(numbers) <= most else f"{shown} and {len(numbers) - most} more"
