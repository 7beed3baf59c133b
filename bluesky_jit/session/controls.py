"""What a control does: the single way back from people and plans into the session."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bluesky_jit.messages import Control

if TYPE_CHECKING:
    from bluesky_jit.session.wiring import Session


def obey(session: Session, control: Control) -> None:
    """Do what a person or plan asked for by a control PV."""
    run = session.run
    learner = run.learner if run else None
    if control.name.endswith(":Position"):
        position_mm = float(control.value)
        if not math.isfinite(position_mm):
            raise ValueError(f"{control.name} was given {control.value!r}: give a number")
        session.positions_mm = {**session.positions_mm, control.name.split(":")[0]: position_mm}
    elif control.name == "Learning:Pause":
        session.paused = bool(control.value)
    elif control.name in ("Learning:Reset", "Learning:Flush"):
        if control.value and learner is None:
            raise ValueError(f"{control.name} was asked for, but there is no run yet that is learned from")
        if control.value and learner:
            (learner.reset if control.name == "Learning:Reset" else learner.flush)()
    elif control.name == "AxisOffset":
        if run is None or run.reconstruction is None:
            raise ValueError(
                f"AxisOffset was given {control.value} mm, but there is no run yet whose axis could be moved"
            )
        # Where it cannot be moved there, this raises, and the axis goes on being looked for.
        run.reconstruction.set_axis_offset(float(control.value))
        run.axis_by_hand = True
    else:
        raise ValueError(f"{control.name} is not a control: see docs/reference/pvs.md")
    session.wake()
