"""Turn the sample: an exact trajectory, and the EPICS motor record that commands it."""

from __future__ import annotations

import asyncio
import bisect
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from caproto import SkipWrite

from sim_devices.pvs import PVTable, show

HISTORY_S = 60.0
POLL_S = 0.05
MOST_DEG_S = 3600.0
"""VMAX, ten turns a second: nothing here is meant to turn faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Describe motion of constant acceleration from `start_s` on, in degrees and seconds."""

    start_s: float
    position: float
    velocity: float = 0.0
    acceleration: float = 0.0

    def position_at(self, time_s: float) -> float:
        t = time_s - self.start_s
        return self.position + (self.velocity + self.acceleration / 2 * t) * t

    def velocity_at(self, time_s: float) -> float:
        return self.velocity + self.acceleration * (time_s - self.start_s)


def _ramp(start: Segment, velocity: float, acceleration: float) -> list[Segment]:
    """Return segments that bring the motion from `start` to a velocity and keep it."""
    change = velocity - start.velocity
    if change == 0:
        return [Segment(start_s=start.start_s, position=start.position, velocity=velocity)]
    rate = math.copysign(acceleration, change)
    ramp = Segment(start_s=start.start_s, position=start.position, velocity=start.velocity, acceleration=rate)
    end_s = start.start_s + change / rate
    return [ramp, Segment(start_s=end_s, position=ramp.position_at(end_s), velocity=velocity)]


def _move(start: Segment, target: float, speed: float, acceleration: float) -> list[Segment]:
    """Return segments that end at rest at `target`, never faster than `speed` once there."""
    distance = target - start.position
    braking = start.velocity * abs(start.velocity) / (2 * acceleration)
    overshoots = start.velocity != 0 and (distance - braking) * math.copysign(1.0, start.velocity) < 0
    if overshoots:
        stopping = _ramp(start, 0.0, acceleration)
        return [*stopping[:-1], *_move(stopping[-1], target, speed, acceleration)]
    if distance == 0:
        return [Segment(start_s=start.start_s, position=target)]
    direction = math.copysign(1.0, distance)
    # The fastest speed from which the stage can still stop in time, over a triangle of speeds.
    peak = math.sqrt(acceleration * abs(distance) + start.velocity**2 / 2)
    segments = _ramp(start, direction * min(speed, peak), acceleration)
    cruise = segments[-1]
    cruise_s = 0.0
    if peak > speed:
        cruise_s = (abs(target - cruise.position) - speed**2 / (2 * acceleration)) / speed
    brake_s = cruise.start_s + cruise_s
    brake = Segment(start_s=brake_s, position=cruise.position_at(brake_s), velocity=cruise.velocity)
    slowing, rest = _ramp(brake, 0.0, acceleration)
    return [*segments, slowing, Segment(start_s=rest.start_s, position=target)]


class Motion:
    """Know where the stage was, is and will be at any time; commands change only the future.

    Readers in other threads see either the old or the new trajectory, since a command swaps one tuple.
    """

    def __init__(self, *, position: float = 0.0, time_s: float = 0.0) -> None:
        self._segments: tuple[Segment, ...] = (Segment(start_s=time_s, position=position),)

    def position(self, time_s: float) -> float:
        """Return degrees at a time; before the kept history, the oldest known position."""
        segment = self._at(time_s)
        return segment.position_at(max(time_s, segment.start_s))

    def velocity(self, time_s: float) -> float:
        segment = self._at(time_s)
        return segment.velocity_at(max(time_s, segment.start_s))

    @property
    def rests_s(self) -> float:
        """Return when the stage comes to rest; infinity while it turns until told otherwise."""
        last = self._segments[-1]
        return last.start_s if last.velocity == 0 else math.inf

    def move(self, target: float, *, speed: float, acceleration: float, now_s: float) -> None:
        self._command(now_s, _move(self._state(now_s), target, speed, acceleration))

    def turn(self, velocity: float, *, acceleration: float, now_s: float) -> None:
        """Turn at a velocity until told otherwise; zero stops."""
        self._command(now_s, _ramp(self._state(now_s), velocity, acceleration))

    def _at(self, time_s: float) -> Segment:
        segments = self._segments
        return segments[max(bisect.bisect_right(segments, time_s, key=lambda segment: segment.start_s) - 1, 0)]

    def _state(self, time_s: float) -> Segment:
        return Segment(start_s=time_s, position=self.position(time_s), velocity=self.velocity(time_s))

    def _command(self, now_s: float, segments: list[Segment]) -> None:
        past = [segment for segment in self._segments if segment.start_s < now_s]
        # The newest segment that began before the history still describes its beginning.
        while len(past) > 1 and past[1].start_s < now_s - HISTORY_S:
            past.pop(0)
        self._segments = (*past, *segments)


class RotationStage:
    """Serve a motor record in degrees; soft limits that are both zero mean none, so it may turn for ever."""

    def __init__(
        self,
        table: PVTable,
        *,
        velocity: float = 30.0,
        acceleration_s: float = 0.2,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self.motion = Motion(time_s=clock())
        self._woken = asyncio.Event()
        self._resting = asyncio.Event()
        self._resting.set()

        degrees: dict[str, Any] = {"units": "deg", "precision": 4}
        self._value = table.number("", on_put=self._put_value, **degrees)
        table.alias(".VAL", self._value)
        self._readback = table.number(".RBV", read_only=True, **degrees)
        self._dial_readback = table.number(".DRBV", read_only=True, **degrees)
        self._dial_value = table.number(".DVAL", read_only=True, **degrees)
        self._offset = table.number(".OFF", on_put=self._put_offset, **degrees)
        self._direction = table.choice(".DIR", "Pos", choices=("Pos", "Neg"), read_only=True)
        self._set = table.choice(".SET", "Use", choices=("Use", "Set"))
        table.choice(".FOFF", "Variable", choices=("Variable", "Frozen"))
        self._velocity = table.number(".VELO", velocity, on_put=_slowed(".VELO"), units="deg/s")
        table.number(".VMAX", MOST_DEG_S, read_only=True, units="deg/s")
        self._acceleration_s = table.number(".ACCL", acceleration_s, on_put=_positive(".ACCL", "s"), units="s")
        self._jog_velocity = table.number(".JVEL", velocity, on_put=_slowed(".JVEL"), units="deg/s")
        table.text(".EGU", "deg")
        table.short(".PREC", 4)
        table.text(".DESC", "sample rotation")
        table.text(".RTYP", "motor", read_only=True)
        table.number(".MRES", 1e-4, read_only=True, **degrees)
        self._high_limit = table.number(".HLM", on_put=self._put_high_limit, **degrees)
        self._low_limit = table.number(".LLM", on_put=self._put_low_limit, **degrees)
        for name in (".HLS", ".LLS", ".MSTA"):
            table.short(name, read_only=True)
        self._limit_violation = table.short(".LVIO", read_only=True)
        self._travel = table.short(".TDIR", 1, read_only=True)
        self._moving = table.short(".MOVN", read_only=True)
        self._done = table.short(".DMOV", 1, read_only=True)
        table.short(".STOP", on_put=self._put_stop)
        self._jog_forward = table.short(".JOGF", on_put=lambda on: self._put_jog(on, +1))
        self._jog_reverse = table.short(".JOGR", on_put=lambda on: self._put_jog(on, -1))
        table.short(".HOMF", on_put=self._put_home)
        table.short(".HOMR", on_put=self._put_home)

    def angle_deg(self, time_s: float) -> float:
        """Return the user angle at a time, exactly: what an encoder latched by the camera would give."""
        return self.motion.position(time_s) + self._offset.value

    async def run(self) -> None:
        """Keep the record's read-backs up to date for ever."""
        while True:
            # Cleared before looking, so that a command given while the read-backs are written is not missed.
            self._woken.clear()
            now_s = self._clock()
            resting = now_s >= self.motion.rests_s
            await self._show_position(now_s)
            if resting and not self._resting.is_set():
                await show(self._moving, 0)
                await show(self._done, 1)
                self._resting.set()
            wait_s = None if resting else min(POLL_S, max(self.motion.rests_s - self._clock(), 0.0))
            try:
                await asyncio.wait_for(self._woken.wait(), wait_s)
            except TimeoutError:
                continue

    async def _show_position(self, now_s: float) -> None:
        dial = self.motion.position(now_s)
        velocity = self.motion.velocity(now_s)
        await show(self._dial_readback, dial, time_s=now_s)
        await show(self._readback, dial + self._offset.value, time_s=now_s)
        if velocity != 0 and self._travel.value != int(velocity > 0):
            await show(self._travel, int(velocity > 0))

    async def _started(self) -> None:
        self._resting.clear()
        await show(self._done, 0)
        await show(self._moving, 1)
        self._woken.set()

    async def _put_value(self, target: float) -> float:
        if not math.isfinite(target):
            raise ValueError(f"the stage cannot move to {target}: give a finite angle in degrees")
        if self._set.value == "Set":
            await self._put_offset(target - self.motion.position(self._clock()))
            return target
        low, high = self._low_limit.value, self._high_limit.value
        outside = low < high and not low <= target <= high
        await show(self._limit_violation, int(outside))
        if outside:
            raise ValueError(f"{target} deg is outside the soft limits {low} to {high}: move .LLM and .HLM first")
        dial = target - self._offset.value
        acceleration = self._velocity.value / self._acceleration_s.value
        self.motion.move(dial, speed=self._velocity.value, acceleration=acceleration, now_s=self._clock())
        await show(self._value, target)
        await show(self._dial_value, dial)
        await self._started()
        # As in the motor record, a put with completion ends when the motion does, whoever ended it.
        await self._resting.wait()
        raise SkipWrite

    async def _put_offset(self, offset: float) -> float:
        await show(self._offset, offset)
        await show(self._value, self.motion.position(max(self._clock(), self.motion.rests_s)) + offset)
        self._woken.set()
        return offset

    async def _put_stop(self, requested: int) -> int:
        if requested and not self._resting.is_set():
            await self._turn(0.0)
        return 0

    async def _put_jog(self, on: int, direction: int) -> int:
        other = self._jog_reverse if direction > 0 else self._jog_forward
        if on and other.value:
            await show(other, 0)
        await self._turn(direction * self._jog_velocity.value if on else 0.0)
        return int(bool(on))

    async def _put_home(self, requested: int) -> int:
        if requested:
            await self._value.write(self._offset.value)
        return 0

    async def _turn(self, velocity: float) -> None:
        speed = abs(velocity) or self._velocity.value
        self.motion.turn(velocity, acceleration=speed / self._acceleration_s.value, now_s=self._clock())
        await self._started()
        if velocity == 0:
            for jog in (self._jog_forward, self._jog_reverse):
                await show(jog, 0)
            await show(self._value, self.motion.position(self.motion.rests_s) + self._offset.value)

    async def _put_high_limit(self, limit: float) -> float:
        await self._value.write_metadata(upper_ctrl_limit=limit, upper_disp_limit=limit)
        return limit

    async def _put_low_limit(self, limit: float) -> float:
        await self._value.write_metadata(lower_ctrl_limit=limit, lower_disp_limit=limit)
        return limit


def _slowed(field: str) -> Callable[[float], Any]:
    """Take a velocity, but none above VMAX: so does the motor record."""
    positive = _positive(field, "deg/s")

    async def check(value: float) -> float:
        return min(await positive(value), MOST_DEG_S)

    return check


def _positive(field: str, unit: str) -> Callable[[float], Any]:
    async def check(value: float) -> float:
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{field} is {value}: give a positive number of {unit}")
        return value

    return check
