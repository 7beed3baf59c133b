"""The stage's trajectory is exact, smooth and obeys its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sim_devices.stage import HISTORY_S, Motion

SPEED, ACCELERATION = 60.0, 300.0


def test_a_move_ends_at_rest_at_its_target():
    motion = Motion(position=10.0, time_s=100.0)
    motion.move(370.0, speed=SPEED, acceleration=ACCELERATION, now_s=100.0)
    assert motion.position(motion.rests_s) == 370.0
    assert motion.velocity(motion.rests_s) == 0.0
    # Distance over speed, plus half of each ramp.
    assert motion.rests_s == pytest.approx(100.0 + 360.0 / SPEED + SPEED / ACCELERATION)


def test_a_long_move_turns_at_exactly_the_speed_asked_for():
    motion = Motion()
    motion.move(3600.0, speed=SPEED, acceleration=ACCELERATION, now_s=0.0)
    times_s = np.arange(1.0, 50.0, 0.025)
    angles = np.array([motion.position(t) for t in times_s])
    np.testing.assert_allclose(np.diff(angles), SPEED * 0.025, rtol=1e-9)


def test_a_move_too_short_for_full_speed_still_arrives():
    motion = Motion()
    motion.move(-1.0, speed=SPEED, acceleration=ACCELERATION, now_s=0.0)
    assert motion.position(motion.rests_s) == -1.0
    assert motion.rests_s == pytest.approx(2 * math.sqrt(1.0 / ACCELERATION))


def test_a_move_to_where_the_stage_is_ends_at_once():
    motion = Motion(position=5.0, time_s=2.0)
    motion.move(5.0, speed=SPEED, acceleration=ACCELERATION, now_s=3.0)
    assert motion.rests_s == 3.0


@pytest.mark.parametrize("target", [500.0, 40.0, 21.0, -300.0])
@pytest.mark.parametrize("speed", [30.0, 60.0, 120.0])
def test_a_new_command_never_makes_the_stage_jump(target: float, speed: float):
    motion = Motion()
    motion.move(1000.0, speed=SPEED, acceleration=ACCELERATION, now_s=0.0)
    motion.move(target, speed=speed, acceleration=ACCELERATION, now_s=0.4)
    times_s = np.linspace(0.0, motion.rests_s + 0.1, 20001)
    positions = np.array([motion.position(t) for t in times_s])
    velocities = np.array([motion.velocity(t) for t in times_s])
    step_s = times_s[1] - times_s[0]
    assert np.abs(np.diff(positions)).max() <= max(SPEED, speed) * step_s * (1 + 1e-6)
    assert np.abs(np.diff(velocities)).max() <= ACCELERATION * step_s * (1 + 1e-6)
    assert positions[-1] == pytest.approx(target)


def test_commands_leave_the_past_as_it_was():
    motion = Motion()
    motion.move(3600.0, speed=SPEED, acceleration=ACCELERATION, now_s=0.0)
    before = [motion.position(t) for t in np.linspace(0.0, 5.0, 50)]
    motion.turn(0.0, acceleration=ACCELERATION, now_s=5.0)
    assert [motion.position(t) for t in np.linspace(0.0, 5.0, 50)] == before


def test_turning_goes_on_until_stopped():
    motion = Motion()
    motion.turn(-SPEED, acceleration=ACCELERATION, now_s=0.0)
    assert motion.rests_s == math.inf
    assert motion.velocity(1000.0) == -SPEED
    motion.turn(0.0, acceleration=ACCELERATION, now_s=1000.0)
    assert motion.rests_s == pytest.approx(1000.0 + SPEED / ACCELERATION)


def test_history_is_kept_for_a_while_and_not_for_ever():
    motion = Motion()
    seen = []
    for second in range(200):
        motion.turn(SPEED * (1 + second % 2), acceleration=ACCELERATION, now_s=float(second))
        seen.append(motion.position(float(second)))
    recent = range(200 - int(HISTORY_S), 200)
    assert [motion.position(float(second)) for second in recent] == [seen[second] for second in recent]
    assert motion.position(0.0) != seen[0]
