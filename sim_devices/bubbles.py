"""Rising gas bubbles as a function of time alone: any process can ask for any moment, without a state.

Each bubble keeps to its own upright lane. Lanes do not overlap, and the bubbles of a lane follow each other at one
speed, far enough apart, so bubbles never touch and line integrals simply add.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sim_devices.bodies import Bodies
from sim_devices.ground import top_mm as top_mm_of_ground

_SPAWN_JITTER = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class BubbleStyle:
    """Describe an experiment's bubbles; lengths are in units of the jar's size.

    lane_radii: the lanes that are tried, widest first; fill: range of a bubble's radius as a part of its lane's;
    speed: mean, units/s; spacing: range of the distance between bubbles of a lane, in lane radii; presence: part of the
    bubbles that form; reach: exponent of how high they rise (0: all to the surface; larger: most stay near the bottom).
    """

    lane_radii: tuple[float, ...]
    fill: tuple[float, float]
    speed: float
    spacing: tuple[float, float]
    presence: float
    reach: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bubbles:
    """Hold the bubbles of one moment.

    lanes, numbers: int64 (n,), which together identify a bubble from moment to moment; centres_mm: float64 (n, 3);
    radii_mm, speeds_mm_s: float64 (n,).
    """

    lanes: np.ndarray
    numbers: np.ndarray
    centres_mm: np.ndarray
    radii_mm: np.ndarray
    speeds_mm_s: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lanes:
    """Hold the upright tubes that bubbles rise in: float64 (n_lanes,) each, in mm and s."""

    seed: int
    style: BubbleStyle
    x_mm: np.ndarray
    y_mm: np.ndarray
    radii_mm: np.ndarray
    speeds_mm_s: np.ndarray
    periods_s: np.ndarray
    phases: np.ndarray
    bottoms_mm: np.ndarray
    top_mm: float
    gap_mm: float

    def bubbles(self, time_s: float, base_mm: Callable[[np.ndarray], np.ndarray]) -> Bubbles:
        """Return the bubbles of a moment; `base_mm` takes times (n_lanes, k) to the heights where bubbles then form."""
        longest_s = (self.top_mm - self.bottoms_mm) / self.speeds_mm_s
        n_back = int(np.max(np.ceil(longest_s / self.periods_s))) + 2
        newest = np.floor(time_s / self.periods_s + self.phases).astype(np.int64)
        numbers = newest[:, None] - np.arange(n_back)
        lanes = np.broadcast_to(np.arange(len(newest))[:, None], numbers.shape)
        fill, sway, turn, height, jitter, presence = _draws(self.seed, lanes, numbers, 6)

        born_s = (numbers - self.phases[:, None] + _SPAWN_JITTER * jitter) * self.periods_s[:, None]
        low, high = self.style.fill
        lane_radii = self.radii_mm[:, None]
        full = lane_radii * (low + (high - low) * fill)
        base = base_mm(born_s)
        reach = np.maximum((self.top_mm - base) * height**self.style.reach, 2.5 * full)
        start, stop = base + full, base + reach - full
        z = start + (time_s - born_s) * self.speeds_mm_s[:, None]
        # A bubble swells while it leaves the bottom and is gone when it reaches its end.
        radii = full * np.clip((z - start) / full, 0, 1) * np.clip((stop - z) / (0.6 * full), 0, 1)
        alive = (radii > 0.02 * full) & (presence < self.style.presence) & (2.5 * full <= self.top_mm - base)
        swing = (lane_radii - full) * sway
        phase = 2 * np.pi * (turn + (z - base) / (6 * lane_radii))
        x = self.x_mm[:, None] + swing * np.cos(phase)
        y = self.y_mm[:, None] + swing * np.sin(phase)
        speeds = np.broadcast_to(self.speeds_mm_s[:, None], z.shape)
        return Bubbles(
            lanes=lanes[alive],
            numbers=numbers[alive],
            centres_mm=np.stack([x, y, z], axis=-1)[alive],
            radii_mm=radii[alive],
            speeds_mm_s=speeds[alive],
        )


def make_lanes(
    style: BubbleStyle,
    *,
    seed: int,
    unit_mm: float,
    within_mm: float,
    ground: Bodies,
    gap_mm: float,
    top_mm: float,
) -> Lanes:
    """Place lanes that do not overlap within a circle around the axis; those that find no room are left out."""
    rng = np.random.default_rng([seed, 3])
    places = np.zeros((0, 3))
    for radius in np.array(style.lane_radii) * unit_mm:
        tries = rng.uniform(-1, 1, (400, 2)) * within_mm
        free = np.hypot(*tries.T) + radius <= within_mm
        distances = np.hypot(tries[:, None, 0] - places[:, 0], tries[:, None, 1] - places[:, 1])
        free &= np.all(distances >= places[:, 2] + radius + gap_mm, axis=1)
        if np.any(free):
            x, y = tries[np.argmax(free)]
            places = np.concatenate([places, [[x, y, radius]]])
    n = len(places)
    # At this spacing the widest bubbles of a lane stay apart even when one forms early and the next one late.
    spacing = places[:, 2] * rng.uniform(*style.spacing, n)
    spacing = np.maximum(spacing, (2 * style.fill[1] * places[:, 2] + gap_mm) / (1 - _SPAWN_JITTER))
    speeds = style.speed * unit_mm * rng.uniform(0.65, 1.35, n)
    return Lanes(
        seed=seed,
        style=style,
        x_mm=places[:, 0],
        y_mm=places[:, 1],
        radii_mm=places[:, 2],
        speeds_mm_s=speeds,
        periods_s=spacing / speeds,
        phases=rng.uniform(0, 1, n),
        bottoms_mm=top_mm_of_ground(ground, *places.T) + gap_mm,
        top_mm=top_mm,
        gap_mm=gap_mm,
    )


def _draws(seed: int, lanes: np.ndarray, numbers: np.ndarray, n: int) -> np.ndarray:
    """Return float64 (n, *lanes.shape) in [0, 1): a bubble's random figures, by hashing which it is (splitmix64)."""
    one = np.uint64(1)
    key = np.full(lanes.shape, seed & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
    for part in (lanes.astype(np.uint64), numbers.astype(np.uint64)):
        key = _mixed(key + part + one)
    return np.stack([(_mixed(key + np.uint64(k)) >> np.uint64(11)) * 2.0**-53 for k in range(n)])


def _mixed(key: np.ndarray) -> np.ndarray:
    key = key + np.uint64(0x9E3779B97F4A7C15)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))
