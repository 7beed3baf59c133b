"""The frames of one run: read in order, pushed into its reconstruction, and everything that is wrong with them told."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bluesky_jit.intake.angle_unit import WrongAngleUnit
from bluesky_jit.intake.frames import FramesNotReady, UnusableCounts, part_of_message
from bluesky_jit.messages import AssetFrames, FrameMessage, Problem, RunOpened, RunStop, Severity
from bluesky_jit.session.couplings import Refused
from bluesky_jit.session.frame_queues import FRAMES_AT_ONCE, FrameQueue, FrameQueues, Waiting
from bluesky_jit.session.kept_flats import KeptFlats
from bluesky_jit.session.run import LiveRun
from bluesky_jit.session.stand_ins import StandIns
from bluesky_jit.tomo.corrections.darkflat import DarkFlat
from bluesky_jit.tomo.reconstructor import Reconstructor

if TYPE_CHECKING:
    from bluesky_jit.session.wiring import Session

logger = logging.getLogger(__name__)


class Feed:
    """Read the frames of one run and push them into its reconstruction. It belongs to the intake stage."""

    def __init__(self, session: Session, run: LiveRun, flats: KeptFlats) -> None:
        """Begin; flats: of earlier runs, for as long as this one has none."""
        self.run = run
        self._stand_ins = StandIns(run, flats, self._report_once)
        self.heard_s = time.monotonic()
        """When the run began, or a message of it last came."""
        self._session = session
        self.queues = FrameQueues()
        self.backlog = 0
        """Frames that wait to be used."""
        self._ended_s = 0.0
        """When the run's end was told."""
        self._unread: dict[str, tuple[int, str]] = {}
        """How many frames of each kind could not be read, and why the first of them could not."""

    @property
    def has_work(self) -> bool:
        """Tell whether there are frames to be read that do not wait for their file."""
        return self.queues.has_work

    @property
    def is_waiting(self) -> bool:
        """Tell whether there are frames to be read."""
        return bool(self.queues)

    @property
    def lag_s(self) -> float:
        """Return how far behind the run this is: what is read after its end is late for nothing."""
        return 0.0 if self.run.stop is not None else self.queues.lag_s

    def take(self, message: Waiting) -> None:
        """Take a message about frames, to be read in its turn."""
        self.heard_s = time.monotonic()
        self.backlog += frames_of(message)
        self.queues.add(message)

    def end(self, stop: RunStop) -> None:
        """Let the run end once its frames are read."""
        self.run.stop = stop
        self._ended_s = time.monotonic()

    def clear(self) -> list[Waiting]:
        """Take all messages that wait, without reading them."""
        self.backlog = 0
        return list(self.queues.clear())

    def read(self) -> None:
        """Read the next frames, as many as are read at once; after a run's last ones it is drained."""
        n, blocked = 0, []
        while n < FRAMES_AT_ONCE and not self._session.stopping.is_set():
            queue = self.queues.next(besides=blocked)
            if queue is None:
                break
            # First of all: what fails in an unforeseen way is not tried again.
            message, after = self.queues.take(queue, self._projections)
            try:
                self._push(message, after)
                queue.move()
            except FramesNotReady as reason:
                if not self._patience_is_over(queue):
                    queue.put_back(message)
                    blocked.append(queue)
                    self._report_waiting(queue, message, reason)
                    continue
                if not isinstance(message, Refused):
                    self._give_up(message, after, reason)
            self._session.inbox.release(message)
            self.backlog -= frames_of(message)
            n += frames_of(message)
        if not self.has_work:
            self._settle()

    @property
    def _projections(self) -> int:
        """Return how many projections have been taken."""
        newest = self.run.reconstruction.newest if self.run.reconstruction else None
        return 0 if newest is None else newest + 1

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
        goes_on = run.stop is None and lender != run.uid and lender in self._session.runs
        return goes_on or self.queues.bring("flat")

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

    def _report_waiting(self, queue: FrameQueue, message: Waiting, reason: FramesNotReady) -> None:
        """Say during the run already that its frames do not appear."""
        patience_s = self._session.settings.intake.file_patience_s
        if not queue.told and time.monotonic() - queue.moved_s > patience_s:
            queue.told = True
            self._report(
                f"no {message.kind} could be read for {patience_s:g} s: {reason}; going on trying until the run has "
                "ended"
            )

    def _patience_is_over(self, queue: FrameQueue) -> bool:
        patience_s = self._session.settings.intake.file_patience_s
        return self.run.stop is not None and time.monotonic() - max(queue.moved_s, self._ended_s) > patience_s

    def _push(self, message: Waiting, after: int | None) -> None:
        if isinstance(message, Refused):
            self._note(message)
        else:
            self._push_frames(message, after)

    def _note(self, refused: Refused) -> None:
        """Enter frames in the record that are not here."""
        self.run.frames.refuse(
            refused.kind,
            np.array(refused.unique_ids, dtype=np.int64) if refused.numbered else None,
            len(refused),
            np.array(refused.frame_times_s) if refused.numbered else None,
            tapped=refused.tapped,
            awaits_documents=refused.awaits_documents,
        )

    def _push_frames(self, message: FrameMessage, after: int | None) -> None:
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
                run.push(replace(block, after=after) if block.after is None else block)
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
        if n:
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

    def _give_up(self, message: FrameMessage, after: int | None, reason: FramesNotReady) -> None:
        """Take the rows that can be read, one by one, now that the rest will not come any more."""
        unread = 0
        for row in range(frames_of(message)):
            try:
                self._push_frames(part_of_message(message, row, 1), after)
            except FramesNotReady:
                unread += 1
        self.run.frames.ledger.give_up(message.kind, unread)
        if unread:
            n, why = self._unread.get(message.kind, (0, str(reason)))
            self._unread[message.kind] = n + unread, why

    def _check_frames(self) -> None:
        """Say in one sentence why a run that has ended gave no slices, or not of all its frames."""
        run = self.run
        ledger = run.frames.ledger
        for kind, n in run.stop.unlocated.items() if run.stop else ():
            ledger.unlocated(kind, n)
        for problem in run.frames.end():
            self._session.report(problem)
        for n, why in self._unread.values():
            frames = "1 frame" if n == 1 else f"{n} frames"
            self._report(f"{frames} could not be read: {why}; they may still be in the file", severity="MAJOR")
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
