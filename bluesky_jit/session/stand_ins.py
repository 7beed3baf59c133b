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
        self._tried_lending = self._tried_estimating = False

    def settle(self, reconstruction: Reconstructor, *, awaited: bool, drained: bool) -> None:
        """Find something where there are no flats, and say what.

        awaited: flats are announced, and come before anything stands in for them; drained: no more projections will
        come. Raises ValueError when the projections show no beam.
        """
        run = self._run
        if run.lent and not reconstruction.ready:
            self._tell(
                f"the flats of {run.lent} do not fit the darks of run {run.uid[:8]}, and are not used: take flats in "
                "this run"
            )
        if not awaited and reconstruction.newest is not None and run.settings.tomo.without_flats == "stand-in":
            self._lend(reconstruction)
            self._estimate(reconstruction, drained=drained)
        stand_in = run.stand_in
        if stand_in:
            origin = "an estimate from its projections" if stand_in == "estimated" else f"those of {stand_in}"
            self._tell(
                f"run {run.uid[:8]} has no flats yet: {origin} stands in for them, so values are in doubt, above all "
                "what is symmetric about the axis, and so is the quality of learning; take flats"
            )
        if self._used not in ("", stand_in) and run.learner is not None:
            # Pairs of slices that were made otherwise.
            run.learner.flush()
        self._used = stand_in

    def _lend(self, reconstruction: Reconstructor) -> None:
        """Use the flats of another run of the same set-up: once, so that what did not fit is not tried again."""
        like = self._flats.like(self._run.start, reconstruction.dark_flat.shape)
        if reconstruction.ready or self._tried_lending or like is None:
            return
        self._tried_lending = True
        uid, dark_flat = like
        try:
            self._run.make_do(reconstruction, uid, dark_flat)
        except ValueError as error:
            self._tell(f"the flats of run {uid[:8]} could not stand in for those of run {self._run.uid[:8]}: {error}")

    def _estimate(self, reconstruction: Reconstructor, *, drained: bool) -> None:
        """Estimate the beam from the projections of a turn: once, also where it fails."""
        run = self._run
        enough = drained or run.frames.ledger.count("projection") >= run.angles_per_turn
        if enough and not (reconstruction.ready or self._tried_estimating):
            self._tried_estimating = True
            reconstruction.estimate_flats()
