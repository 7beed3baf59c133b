"""The frames of one run: read in order, pushed into its reconstruction, and everything that is wrong with them told."""

from __future__ import annotations

import logging
import time
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from bluesky_jit.intake.angle_unit import WrongAngleUnit
from bluesky_jit.intake.frames import FramesNotReady, UnusableCounts, part_of_message, split_message
from bluesky_jit.messages import AssetFrames, FrameMessage, Problem, RunOpened, RunStop, Severity
from bluesky_jit.session.couplings import Refused
from bluesky_jit.session.kept_flats import KeptFlats
from bluesky_jit.session.run import LiveRun
from bluesky_jit.session.stand_ins import StandIns
from bluesky_jit.tomo.corrections.darkflat import DarkFlat
from bluesky_jit.tomo.reconstructor import Reconstructor

if TYPE_CHECKING:
    from bluesky_jit.session.wiring import Session

logger = logging.getLogger(__name__)

Waiting = FrameMessage | Refused

FRAMES_AT_ONCE = 32
"""Frames read at a time: a long sweep never fills the memory, nor does it keep other runs waiting."""


class Feed:
    """Read the frames of one run and push them into its reconstruction. It belongs to the intake stage."""

    def __init__(self, session: Session, run: LiveRun, flats: KeptFlats) -> None:
        """Begin; flats: of earlier runs, for as long as this one has none."""
        self.run = run
        self._stand_ins = StandIns(run, flats, self._report_once)
        self.heard_s = time.monotonic()
        """When the run began, or a message of it last came."""
        self._session = session
        self._tapped: deque[tuple[float, Waiting]] = deque()
        self._waiting: deque[tuple[float, Waiting]] = deque()
        """Messages whose frames nobody has begun to read, and when they came."""
        self._parts: deque[Waiting] = deque()
        """What is left of the message that is being read."""
        self.backlog = 0
        """Frames that wait to be used."""
        self._ready_s = 0.0
        """When the next frames were last not in their file yet."""
        self._patient_since_s = self._told_s = time.monotonic()
        self._blocked = False
        """The next frames are not in their file yet."""

    @property
    def has_work(self) -> bool:
        """Tell whether there are frames to be read that do not wait for their file."""
        return bool(self._tapped) or (bool(self._parts or self._waiting) and not self._blocked)

    @property
    def is_waiting(self) -> bool:
        """Tell whether there are frames to be read."""
        return bool(self._tapped or self._parts or self._waiting)

    @property
    def lag_s(self) -> float:
        """Return for how long frames have waited that nobody has begun to read and that could be read."""
        came_s = [queue[0][0] for queue in (self._tapped, () if self._blocked else self._waiting) if queue]
        return time.monotonic() - max(min(came_s), self._ready_s) if came_s else 0.0

    def take(self, message: Waiting) -> None:
        """Take a message about frames, to be read in its turn."""
        self.heard_s = time.monotonic()
        self.backlog += frames_of(message)
        if not isinstance(message, AssetFrames) and message.tapped:
            # Not behind those that wait for their file: what the tap brings need not be read there.
            self._tapped.append((self.heard_s, message))
            return
        if not (self._parts or self._waiting):
            self._patient_since_s = self._told_s = self.heard_s
        self._waiting.append((self.heard_s, message))

    def end(self, stop: RunStop) -> None:
        """Let the run end once its frames are read."""
        self.run.stop = stop
        self._patient_since_s = time.monotonic()

    def read(self) -> None:
        """Read the next frames, as many as are read at once; after a run's last ones it is drained."""
        n = 0
        while self.is_waiting and n < FRAMES_AT_ONCE and not self._session.stopping.is_set():
            # First of all: what fails in an unforeseen way is not tried again.
            message = self._next()
            try:
                self._push(message)
                self._patient_since_s = self._told_s = time.monotonic()
            except FramesNotReady as reason:
                self._blocked = not self._patience_is_over
                if self._blocked:
                    self._parts.appendleft(message)
                    self._ready_s = time.monotonic()
                    self._report_waiting(reason)
                    break
                if not isinstance(message, Refused):
                    self._give_up(message, reason)
            self._blocked = False
            self._session.inbox.release(message)
            self.backlog -= frames_of(message)
            n += frames_of(message)
        if not self.has_work:
            self._settle()

    def _next(self) -> Waiting:
        if self._tapped:
            return self._tapped.popleft()[1]
        if not self._parts:
            _, message = self._waiting.popleft()
            self._parts.extend([message] if isinstance(message, Refused) else split_message(message, FRAMES_AT_ONCE))
        return self._parts.popleft()

    def _settle(self) -> None:
        """Let what came late take effect, and end the run when nothing more will come."""
        run, session = self.run, self._session
        # Before it settles: what moves later takes effect the next time.
        last = run.axis_settled
        if run.reconstruction is not None and (session.inbox.empty or run.stop is not None):
            self._settle_reconstruction(run.reconstruction)
        if self.is_waiting:
            return
        if last and not run.settled:
            session.settle_run(run)
        if run.stop is not None and not run.drained:
            self._check_frames()
            run.drained_s = time.monotonic()
            run.drained = True
            session.wake()

    def _settle_reconstruction(self, reconstruction: Reconstructor) -> None:
        """Let late darks and flats take effect, and say what limits the slices."""
        drained = self.run.stop is not None and not self.is_waiting
        try:
            self._stand_ins.settle(reconstruction, awaited=self._awaits_flats, drained=drained)
            if reconstruction.settle(drained=drained):
                self._session.wake()
        except Exception as error:
            # Slices stay as they were, and it is tried again; whatever a run has brought, the next run comes.
            if not isinstance(error, (ValueError, MemoryError)):
                logger.exception("run %s could not be settled", self.run.uid)
            self._report(str(error) or type(error).__name__, severity="MAJOR")
        if reconstruction.complete or drained:
            for text in reconstruction.warnings():
                self._report_once(text)

    @property
    def _awaits_flats(self) -> bool:
        """Tell whether flats are to come: this run's own that are announced, or those of the run that it names."""
        run, lender = self.run, self.run.start.tomo.get("dark_flat_uid")
        announced = chain(self._parts, (message for _, message in chain(self._tapped, self._waiting)))
        goes_on = run.stop is None and lender != run.uid and lender in self._session.runs
        return goes_on or any(message.kind == "flat" for message in announced)

    def borrow(self, dark_flat: DarkFlat) -> None:
        """Use the darks and flats of the run that is named, now that it has ended."""
        try:
            self.run.borrow(dark_flat)
        except ValueError as error:
            self._report(str(error))

    def _report(self, text: str, *, severity: Severity = "MINOR") -> None:
        self._session.report(Problem(text=text, severity=severity, run_uid=self.run.uid))

    def _report_once(self, text: str) -> None:
        if text not in self.run.told:
            self.run.told.add(text)
            self._report(text)

    def _report_waiting(self, reason: FramesNotReady) -> None:
        """Say during the run already that its frames do not appear."""
        patience_s = self._session.settings.intake.file_patience_s
        if time.monotonic() - self._told_s > patience_s:
            self._report(
                f"no frame could be read for {patience_s:g} s: {reason}; going on trying until the run has ended"
            )
            self._told_s = time.monotonic()

    @property
    def _patience_is_over(self) -> bool:
        patience_s = self._session.settings.intake.file_patience_s
        return self.run.stop is not None and time.monotonic() - self._patient_since_s > patience_s

    def _push(self, message: Waiting) -> None:
        if isinstance(message, Refused):
            self._note(message)
        else:
            self._push_frames(message)

    def _note(self, refused: Refused) -> None:
        """Enter frames in the ledger that are not here: they are lost, unless the run's records bring them."""
        n = len(refused)
        ids = np.array(refused.unique_ids, dtype=np.int64) if refused.numbered else None
        times_s = np.array(refused.frame_times_s) if refused.numbered else None
        self.run.frames.ledger.enter(refused.kind, ids, n, times_s, tapped=refused.tapped, here=False)

    def _push_frames(self, message: FrameMessage) -> None:
        run, n = self.run, frames_of(message)
        early = False
        try:
            if isinstance(message, AssetFrames) and not message.image.swmr and run.stop is None:
                # Rows of a file that is being written without SWMR may read as zeros. Darks and flats are done sooner.
                early = message.kind != "projection" and run.frames.are_closed(message)
            if isinstance(message, AssetFrames) and not (message.image.swmr or run.stop or early):
                raise FramesNotReady(f"{message.image.uri} is written without SWMR: it is read when the run has ended")
            block = run.frames.frames(message)
            n = len(block)
            if n and run.geometry is None:
                self._prepare((block.counts.shape[1], block.counts.shape[2]))
            if n:
                run.push(block)
        except FramesNotReady:
            raise
        except (UnusableCounts, WrongAngleUnit) as error:
            run.unusable_frames += n
            if error.reason not in run.told:
                run.told.add(error.reason)
                self._report(str(error), severity="MAJOR")
            return
        except Exception as error:
            # Whatever a file or a run's metadata holds, the next frames and the next run come.
            text = str(error)
            if not isinstance(error, ValueError):
                logger.exception("frames of run %s could not be used", run.uid)
                text = f"{n} frames could not be used ({type(error).__name__}: {error}): they were left out"
            run.unusable_frames += n
            self._report(text, severity="MAJOR")
            return
        finally:
            if early:
                run.frames.close_files()
            for problem in run.frames.troubles.take():
                self._session.report(problem)
        self._session.feed_run(run)

    def _prepare(self, frame_shape: tuple[int, int]) -> None:
        """Make what reconstructs a run, tell the sinks, and then what learns: slices need no learning."""
        run, session = self.run, self._session
        if run.decline_loan(frame_shape):
            self._report("the darks and flats of the run that was named are of another size: take flats in this run")
        run.prepare(frame_shape)
        # First it is on show, if it is to be: servers show nothing of other runs.
        session.feed_run(run)
        if run.geometry is not None:
            session.outbox.put(
                RunOpened(
                    start=run.start,
                    geometry=run.geometry,
                    settings=session.settings.to_dict(),
                    corrections=run.corrections.to_metadata(),
                    on_show=run is session.run,
                )
            )
        if session.settings.learn.enabled:
            try:
                run.start_learning(session.report)
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                # Beside settings that do not fit: folders, a home that nobody has, and what is too large.
                run.learning_problem = f"nothing is learned here, slices stay raw: {str(error) or 'no memory'}"
                self._report(run.learning_problem)

    def _give_up(self, message: FrameMessage, reason: FramesNotReady) -> None:
        """Take the rows that can be read, one by one, now that the rest will not come any more."""
        unread = 0
        for row in range(frames_of(message)):
            try:
                self._push_frames(part_of_message(message, row, 1))
            except FramesNotReady:
                unread += 1
        ledger = self.run.frames.ledger
        ledger.give_up(message.kind, unread)
        if unread:
            text = f"{ledger.unread} frames could not be read: {reason}; they may still be in the file"
            self._report(text, severity="MAJOR")

    def _check_frames(self) -> None:
        """Say in one sentence why a run that has ended gave no slices, or not of all its frames."""
        run = self.run
        ledger = run.frames.ledger
        for kind, n in run.stop.unlocated.items() if run.stop else ():
            ledger.unlocated(kind, n)
        for problem in run.frames.end():
            self._session.report(problem)
        if run.stop is not None and run.stop.exit_status != "success":
            text = f"run {run.uid[:8]} ended as {run.stop.exit_status!r} after {ledger.count('projection')} projections"
            self._report(f"{text}: {run.stop.reason or 'no reason given'}")
            return
        if run.geometry is not None and ledger.count("projection") and run.flats == "none":
            self._report(
                f"run {run.uid[:8]} has no flats, so its slices cannot be made; its raw frames are safe: take flats in "
                "the same run (tomo_scan(flats=20))",
                severity="MAJOR",
            )
        never_came = ledger.expect("projection", run.start.expected_projections or 0)
        if never_came:
            text = f"{never_came} of {run.start.expected_projections} projections of run {run.uid[:8]} never came"
            self._report(f"{text}: they are not in the slices")


def frames_of(message: Waiting) -> int:
    """Return how many frames a message is about."""
    if isinstance(message, Refused):
        return len(message)
    return message.image.count if isinstance(message, AssetFrames) else len(message.counts)
