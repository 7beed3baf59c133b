"""The rotation stage: a motor record that can also turn at constant velocity while the camera exposes."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ophyd import DeviceStatus, EpicsMotor
from ophyd.status import SubscriptionStatus
from ophyd.utils import LimitError

from bluesky_jit.beamline.reads import ANSWER_S, forget_unanswered_reads

logger = logging.getLogger(__name__)

RUN_ON = 1.0
"""The stage aims this part of the arc beyond it, so that late frames of a camera that does not keep pace still see it
turning; the scan stops it as soon as it has its frames."""
RUN_ON_S = 30.0
"""But this much time at least, in a short scan, too: a busy camera may be seconds late with its first frame."""
START_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turning:
    """Ask the stage to turn at a constant speed over an arc, in degrees."""

    speed_deg_s: float
    arc_deg: float


class RotationStage(EpicsMotor):
    """Turn the sample, in degrees, anticlockwise seen from above for positive angles.

    It moves (`bps.mv(stage, 90)`) and flies: `prepare(Turning(...))`, `kickoff` (done at full speed), `complete`
    (stops).
    """

    _turning: Turning | None = None
    _velocity_before: float | None = None

    def stage(self) -> list[object]:
        """Remember the velocity, which turning changes."""
        forget_unanswered_reads(self)
        self._velocity_before = float(self.velocity.get(use_monitor=False, timeout=ANSWER_S))
        return super().stage()

    def unstage(self) -> list[object]:
        """Restore the velocity."""
        if self._velocity_before is not None and self.velocity.connected:
            try:
                self.velocity.put(self._velocity_before, wait=True)
                self._velocity_before = None
            except Exception as error:
                # With its IOC gone there is nothing to restore; a stage that stayed staged could not be used again.
                logger.error("the velocity of %s is left as it is: %s", self.name, error)
                logger.debug("the velocity of %s could not be restored", self.name, exc_info=True)
        return super().unstage()

    @property
    def angle_deg(self) -> float:
        """Return where the stage stands."""
        return float(self.user_readback.get())

    @property
    def ramp_s(self) -> float:
        """Return how long the stage takes to reach its speed."""
        return float(self.acceleration.get())

    def check_turning(self, turning: Turning) -> None:
        """Raise ValueError or LimitError when the stage cannot turn like this from where it stands."""
        if turning.speed_deg_s <= 0 or turning.arc_deg <= 0:
            raise ValueError(
                f"{self.name} cannot turn {turning.arc_deg}° at {turning.speed_deg_s}°/s: give positive values"
            )
        self._target(turning)

    def prepare(self, turning: Turning) -> DeviceStatus:
        """Set the speed for the turning to come."""
        self.check_turning(turning)
        self._turning = turning
        self.velocity.put(turning.speed_deg_s, wait=True)
        speed = float(self.velocity.get(use_monitor=False, timeout=ANSWER_S))
        if abs(speed - turning.speed_deg_s) > 1e-3 * turning.speed_deg_s:  # the record keeps between VBAS and VMAX
            raise ValueError(
                f"{self.name} cannot turn at {turning.speed_deg_s:.4g}°/s, only at {speed:.4g}°/s: "
                "change the exposure, the period or the angles in a turn"
            )
        return _finished(self)

    def kickoff(self) -> DeviceStatus:
        """Start turning; the status is done when the stage has run up to its speed."""
        if self._turning is None:
            raise RuntimeError(f"{self.name} does not know how to turn: prepare a Turning first")
        at_speed = self.angle_deg + self._run_up_deg(self._turning)
        status = SubscriptionStatus(
            self.user_readback,
            lambda *, value, **_: value >= at_speed,
            timeout=2 * self.ramp_s + START_TIMEOUT_S,
        )
        self.user_setpoint.put(self._target(self._turning), wait=False)
        return status

    def complete(self) -> DeviceStatus:
        """Stop turning; the status is done when the stage is at rest."""
        self._turning = None
        self.stop(success=True)
        return SubscriptionStatus(
            self.motor_done_move,
            lambda *, value, **_: value == 1,
            timeout=2 * self.ramp_s + START_TIMEOUT_S,
        )

    def _run_up_deg(self, turning: Turning) -> float:
        return turning.speed_deg_s * self.ramp_s / 2

    def _target(self, turning: Turning) -> float:
        """Return where to aim: the run-up, the arc, the run-down, and some time more if the limits allow."""
        here = self.angle_deg
        needed = here + turning.arc_deg + 2 * self._run_up_deg(turning)
        generous = needed + max(RUN_ON * turning.arc_deg, turning.speed_deg_s * RUN_ON_S)
        low, high = self.limits
        if low >= high:  # no limits, by EPICS's convention
            return generous
        if needed > high:
            raise LimitError(
                f"{self.name} stands at {here:.2f}° and would turn to {needed:.2f}°, beyond its limit {high:.2f}°: "
                "turn it back first, or ask for fewer turns"
            )
        return min(generous, high)


def _finished(stage: EpicsMotor) -> DeviceStatus:
    status = DeviceStatus(stage)
    status.set_finished()
    return status
