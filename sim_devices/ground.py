"""Granular ground: spheres at rest on the bottom of the jar."""

from __future__ import annotations

import numpy as np

from sim_devices.bodies import Bodies, spheres
from sim_devices.materials import Material


def make_ground(*, rng: np.random.Generator, within_mm: float, floor_mm: float, unit_mm: float) -> Bodies:
    """Drop granules on the floor one by one; each comes to rest in the lowest of several places."""
    placed = np.zeros((0, 4))
    volume, wanted = 0.0, 0.07 * unit_mm * np.pi * within_mm**2
    while volume < wanted:
        radius = rng.uniform(0.045, 0.085) * unit_mm
        distance = (within_mm - radius) * np.sqrt(rng.uniform(0, 1, 24))
        turn = rng.uniform(0, 2 * np.pi, 24)
        x, y = distance * np.cos(turn), distance * np.sin(turn)
        apart = np.hypot(x[:, None] - placed[:, 0], y[:, None] - placed[:, 1])
        touching = (radius + placed[:, 3]) * (1 + 1e-6)
        on_top = placed[:, 2] + np.sqrt(np.maximum(touching**2 - apart**2, 0))
        heights = np.where(apart < touching, on_top, -np.inf)
        z = np.maximum(np.max(heights, axis=1, initial=-np.inf), floor_mm + radius)
        best = np.argmin(z)
        placed = np.concatenate([placed, [[x[best], y[best], z[best], radius]]])
        volume += 4 / 3 * np.pi * radius**3
    return spheres(placed[:, :3], placed[:, 3], material=Material.GRANULE, displaced=Material.FLUID)


def top_mm(ground: Bodies, x_mm: np.ndarray, y_mm: np.ndarray, radii_mm: np.ndarray) -> np.ndarray:
    """Return float64 (n,): the highest point of any granule that reaches into an upright tube, for n tubes."""
    apart = np.hypot(x_mm[:, None] - ground.centres[:, 0], y_mm[:, None] - ground.centres[:, 1])
    tops = np.where(apart < radii_mm[:, None] + ground.radii, ground.centres[:, 2] + ground.radii, -np.inf)
    floor = np.min(ground.centres[:, 2] - ground.radii)
    return np.maximum(np.max(tops, axis=1), floor)
