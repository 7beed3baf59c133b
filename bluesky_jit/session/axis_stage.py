"""The axis loop: where the rotation axis is, estimated once a turn beside the slices."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bluesky_jit.messages import Problem
from bluesky_jit.session.run import LiveRun
from bluesky_jit.tomo.axis.estimate import AxisEstimate
from bluesky_jit.tomo.axis.track import AxisTracker
from bluesky_jit.tomo.reconstructor import Reconstructor

if TYPE_CHECKING:
    from bluesky_jit.session.wiring import Session

IDLE_S = 0.05
SHORTEST_S = 2.0
"""Fast turns are not all looked at: the estimate stays a small part of a core."""
WORTH_SAYING_PX = 0.5
"""An axis that is further off than this widens edges by more than a voxel."""
SETTLED_PX = 0.05
"""The axis is not moved by less: every move makes all slices anew."""


@dataclass(slots=True)
class _Look:
    """Hold what is known of one run: its estimates, and how many projections it had at the last one."""

    tracker: AxisTracker = field(default_factory=AxisTracker)
    at: int = 0
    next_s: float = 0.0
    moved: bool = False


class AxisWatch:
    """Estimate the axis of each open run, tell people, and move it where the settings say so.

    "given": never; "estimate": once, as soon as an estimate can be trusted; "track": after every turn. Somebody who
    moves the axis by hand has the last word in that run.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._looks: dict[str, _Look] = {}

    def loop(self) -> None:
        seen = -1
        while not self._session.stopping.is_set():
            seen = self._session.wait_for_frames(seen, IDLE_S)
            runs = self._session.runs
            self._looks = {uid: look for uid, look in self._looks.items() if uid in runs}
            for run in runs.values():
                if not run.axis_settled:
                    self.look(run)

    def look(self, run: LiveRun) -> None:
        """Estimate the axis if it is due; after a run's last projection it is settled."""
        look = self._looks.setdefault(run.uid, _Look())
        last, reconstruction = run.drained, run.reconstruction
        try:
            if (
                reconstruction is not None
                and reconstruction.ready
                and self._is_due(run, look, reconstruction, last=last)
            ):
                look.at = run.frames.ledger.count("projection")
                run.axis = look.tracker.update(reconstruction.estimate_axis())
                look.next_s = time.monotonic() + SHORTEST_S
                self._act(run, look, reconstruction, run.axis)
        finally:
            if last:
                self._session.settle_axis(run)

    def _is_due(self, run: LiveRun, look: _Look, reconstruction: Reconstructor, *, last: bool) -> bool:
        new = run.frames.ledger.count("projection") - look.at
        if last:
            # An estimate made while the last views of half a turn still lacked may be in doubt.
            known = run.axis is not None and run.axis.trusted
            return new > 0 and (not known or new >= run.angles_per_turn / 2)
        if not reconstruction.complete or time.monotonic() < look.next_s:
            return False
        return look.at == 0 or new >= run.angles_per_turn

    def _act(self, run: LiveRun, look: _Look, reconstruction: Reconstructor, estimate: AxisEstimate) -> None:
        if not estimate.trusted:
            return
        geometry = reconstruction.geometry
        off_px = abs(estimate.offset_mm - geometry.axis_offset_mm) / geometry.voxel_mm
        mode = self._session.settings.tomo.axis
        if not run.axis_by_hand and (mode == "track" or (mode == "estimate" and not look.moved)):
            look.moved = True
            if off_px > SETTLED_PX:
                try:
                    reconstruction.set_axis_offset(estimate.offset_mm)
                except ValueError as error:
                    text = f"the rotation axis is estimated at {estimate.offset_mm:.4f} mm and was not moved: {error}"
                    self._session.report(Problem(text=text, run_uid=run.uid))
                self._session.wake()
        elif off_px > WORTH_SAYING_PX and not run.axis_told:
            run.axis_told = True
            self._session.report(Problem(text=_off(estimate, geometry.axis_offset_mm, off_px), run_uid=run.uid))


def _off(estimate: AxisEstimate, offset_mm: float, off_px: float) -> str:
    return (
        f"the rotation axis is estimated at {estimate.offset_mm:.4f} mm (column {estimate.column:.2f}, confidence "
        f"{estimate.confidence:.2f}), {off_px:.1f} pixels from the {offset_mm:.4f} mm in use: put it to AxisOffset, or "
        'set tomo.axis = "estimate"'
    )
