"""Scans of the simulated sample whose rotation axis is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bluesky_jit.tomo.geometry import ConeGeometry, Geometry, ParallelGeometry
from sim_devices.phantom import experiment

PARALLEL = ParallelGeometry(n_u=256, n_v=4, pixel_mm=0.5)
CONE = ConeGeometry(n_u=256, n_v=4, pixel_mm=0.6, source_axis_mm=441.4, source_detector_mm=1069.0)
HALF_TURN, TURN = np.pi, 2 * np.pi


def angles(n: int, arc_rad: float, start_rad: float = 0.3) -> np.ndarray:
    return start_rad + np.arange(n) * arc_rad / n


def scan(geometry: Geometry, axis_px: float, angles_rad: np.ndarray, *, part_of_field: float = 0.85) -> np.ndarray:
    """Return exact line integrals (n_v, n, n_u) of a sample that fills so much of the field of view."""
    sample = experiment("B", seed=1, radius_mm=part_of_field * geometry.radius_mm, half_height_mm=30.0)
    set_up = replace(geometry, axis_offset_mm=axis_px * geometry.voxel_mm)
    return np.stack([sample.line_integrals(set_up, angle, 0.0) for angle in angles_rad], axis=1).astype(np.float64)


def with_noise(line_integrals: np.ndarray, photons: float, seed: int = 0) -> np.ndarray:
    """Return what a detector that counts so many photons in the open beam measures of line integrals."""
    counts = np.random.default_rng(seed).poisson(photons * np.exp(-line_integrals))
    return -np.log(np.maximum(counts, 0.5) / photons)
