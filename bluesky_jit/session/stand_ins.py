"""What stands in for the flats of a run that has none yet, and that people are told so."""

from __future__ import annotations

from collections.abc import Callable

from bluesky_jit.session.kept_flats import KeptFlats
from bluesky_jit.session.run import LiveRun
from bluesky_jit.tomo.reconstructor import Reconstructor


class StandIns:
    """Let projections be compared with something while a run has no flats. It belongs to the intake stage."""

    def __init__(self, run: LiveRun, flats: KeptFlats, tell: Callable[[str], None]) -> None:
        """Begin; flats: of earlier runs; tell: is given each sentence as often as it holds."""
        self._run = run
        self._flats = flats
        self._tell = tell
        self._used = ""
        """What was used in the place of flats when the run last settled."""
        self._estimated = False

    def lend(self, frame_shape: tuple[int, int]) -> None:
        """Begin with the darks and flats of another run, before the first frame, where there are some that do."""
        run = self._run
        if run.decline_loan(frame_shape):
            self._tell("the darks and flats of the run that was named are of another size: take flats in this run")
        like = self._flats.like(run.start, frame_shape)
        if like and not run.has_loan and run.settings.tomo.without_flats == "stand-in":
            run.make_do(*like)

    def settle(self, reconstruction: Reconstructor) -> None:
        """Find something where there are no flats, and say what.

        Raises ValueError when the projections show no beam.
        """
        run = self._run
        projections = run.frames.ledger.count("projection")
        waits = run.settings.tomo.without_flats == "wait"
        enough = projections >= run.angles_per_turn or (projections and run.stop is not None)
        if enough and not (reconstruction.ready or waits or self._estimated):
            # Once, also where it fails.
            self._estimated = True
            reconstruction.estimate_flats()
        stand_in = run.stand_in
        if stand_in and projections:
            origin = "an estimate from its projections" if stand_in == "estimated" else f"those of {stand_in}"
            self._tell(
                f"run {run.uid[:8]} has no flats yet: {origin} stands in for them, so values are in doubt, above all "
                "what is symmetric about the axis, and so is the quality of learning; take flats"
            )
        if self._used and not stand_in and run.learner is not None:
            # Pairs of slices that were made otherwise.
            run.learner.flush()
        self._used = stand_in
