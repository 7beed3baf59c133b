"""The simulated stage is a motor record: stock ophyd moves it, and it can turn for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ophyd import EpicsMotor, EpicsSignal
from ophyd.utils.errors import LimitError
from servers import Sim, wait_for

from bluesky_jit.beamline.stage import RotationStage, Turning

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def connected(sim: Sim) -> EpicsMotor:
    motor = EpicsMotor(f"{sim.prefix}ROT", name="stage")
    motor.wait_for_connection(timeout=10)
    return motor


@pytest.fixture
def stage(connected: EpicsMotor) -> Iterator[EpicsMotor]:
    connected.velocity.set(200).wait(10)
    yield connected
    connected.stop()
    # News of the set point that comes while a test sets limits would bring ophyd the old limits along.
    wait_for(lambda: settled(connected))


def settled(stage: EpicsMotor) -> bool:
    """Return whether the stage is at rest and its last monitors have come."""
    readback = stage.user_readback.get(use_monitor=False)
    setpoint = stage.user_setpoint.get(use_monitor=False)
    return not stage.moving and stage.position == readback == pytest.approx(setpoint, abs=1e-6)


def signal(sim: Sim, suffix: str, **options: Any) -> EpicsSignal:
    made = EpicsSignal(sim.prefix + suffix, name=suffix, **options)
    made.wait_for_connection(timeout=10)
    return made


class Readbacks:
    """Record the read-back with the times it was taken at."""

    def __init__(self, stage: EpicsMotor) -> None:
        self._signal = stage.user_readback
        self.times_s: list[float] = []
        self.angles: list[float] = []
        self._number = self._signal.subscribe(self._take, run=False)

    def close(self) -> None:
        self._signal.unsubscribe(self._number)

    def _take(self, *, value: float, timestamp: float, **_: Any) -> None:
        self.times_s.append(timestamp)
        self.angles.append(value)


def test_a_move_ends_where_it_was_sent(stage: EpicsMotor):
    target = stage.position + 45
    status = stage.move(target, wait=False)
    status.wait(10)
    wait_for(lambda: stage.position == pytest.approx(target, abs=1e-6))
    assert stage.motor_done_move.get(use_monitor=False) == 1


def test_it_turns_at_its_velocity_for_many_turns(stage: EpicsMotor):
    readbacks = Readbacks(stage)
    start = stage.position
    stage.move(start + 10_000, wait=False)
    wait_for(lambda: stage.position > start + 300)
    readbacks.close()
    times_s, angles = np.array(readbacks.times_s), np.array(readbacks.angles)
    steady = angles > start + 60
    speeds = np.diff(angles[steady]) / np.diff(times_s[steady])
    np.testing.assert_allclose(speeds, 200.0, rtol=1e-3)


def test_readbacks_carry_the_time_they_were_taken_at(stage: EpicsMotor):
    stage.move(stage.position + 100, wait=False).wait(10)
    stage.user_readback.get(use_monitor=False)
    assert stage.user_readback.timestamp == pytest.approx(time.time(), abs=5)


def test_stopping_ends_a_move_and_says_where(stage: EpicsMotor):
    start = stage.position
    stage.move(start + 10_000, wait=False)
    wait_for(lambda: stage.position > start + 20)
    stage.stop()
    wait_for(lambda: not stage.moving)
    assert stage.position < start + 1000
    wait_for(lambda: stage.user_setpoint.get(use_monitor=False) == pytest.approx(stage.position, abs=1e-6))


def test_a_jog_goes_on_until_it_is_taken_back(sim: Sim, stage: EpicsMotor):
    jog, jog_velocity = signal(sim, "ROT.JOGF"), signal(sim, "ROT.JVEL")
    jog_velocity.set(100).wait(10)
    start = stage.position
    jog.set(1).wait(10)
    wait_for(lambda: stage.position > start + 30)
    assert stage.moving
    jog.set(0).wait(10)
    wait_for(lambda: not stage.moving)


def test_a_put_to_the_setpoint_completes_with_the_move(sim: Sim, stage: EpicsMotor):
    setpoint = signal(sim, "ROT.VAL", put_complete=True)
    target = stage.position + 50
    setpoint.set(target).wait(10)
    assert stage.motor_done_move.get(use_monitor=False) == 1
    assert stage.user_readback.get(use_monitor=False) == pytest.approx(target, abs=1e-6)


def test_a_new_target_replaces_the_old_one_without_a_halt(stage: EpicsMotor):
    start = stage.position
    stage.user_setpoint.put(start + 10_000)
    wait_for(lambda: stage.position > start + 20)
    stage.user_setpoint.put(start + 100)
    wait_for(lambda: not stage.moving)
    assert stage.user_readback.get(use_monitor=False) == pytest.approx(start + 100, abs=1e-6)


def test_soft_limits_hold_once_they_are_set(stage: EpicsMotor):
    start = stage.position
    stage.low_limit_travel.set(start - 10).wait(10)
    stage.high_limit_travel.set(start + 10).wait(10)
    try:
        wait_for(lambda: stage.limits == (start - 10, start + 10))
        with pytest.raises(LimitError):
            stage.move(start + 20)
        stage.user_setpoint.put(start + 20, force=True)
        assert not stage.moving
    finally:
        stage.low_limit_travel.set(0).wait(10)
        stage.high_limit_travel.set(0).wait(10)


def test_the_position_can_be_redefined(stage: EpicsMotor):
    stage.set_current_position(5.0)
    wait_for(lambda: stage.position == pytest.approx(5.0, abs=1e-6))
    stage.user_offset.set(0.0).wait(10)


def test_a_velocity_that_makes_no_sense_is_refused(stage: EpicsMotor):
    stage.velocity.put(-1.0)
    stage.velocity.set(150).wait(10)
    assert stage.velocity.get(use_monitor=False) == 150


def test_it_turns_no_faster_than_its_highest_velocity(stage: EpicsMotor):
    before = stage.velocity.get()
    try:
        stage.velocity.put(1e6, wait=True)
        assert stage.velocity.get(use_monitor=False) == 3600.0
    finally:
        stage.velocity.put(before, wait=True)


def test_a_scan_that_the_stage_is_too_slow_for_is_refused(sim: Sim):
    turntable = RotationStage(f"{sim.prefix}ROT", name="turntable")
    turntable.wait_for_connection()
    before = turntable.velocity.get()
    try:
        with pytest.raises(ValueError, match="cannot turn at 1e"):
            turntable.prepare(Turning(speed_deg_s=1e9, arc_deg=360.0))
    finally:
        turntable.velocity.put(before, wait=True)
