"""Balls whose line integrals are known exactly, projected with no help from the code under test."""

from dataclasses import dataclass

import numpy as np

from bluesky_jit.messages import ProjectionBlock

DARK, BEAM = 100, 60_000


@dataclass(frozen=True)
class Ball:
    centre: tuple[float, float, float]
    radius: float
    mu: float
    soft: bool = False
    """A soft ball fades as (1 - r²/R²)²: it has no edge whose sampling would hide the reconstruction's own error."""

    def integral(self, miss_squared):
        """Return the line integral of rays that pass the centre at a (squared) distance."""
        half_chord = np.sqrt(np.clip(self.radius**2 - miss_squared, 0, None))
        return self.mu * (16 / 15 * half_chord**5 / self.radius**4 if self.soft else 2 * half_chord)

    def attenuation(self, points):
        """Return the truth at points (..., 3)."""
        inside = 1 - np.sum((points - np.array(self.centre)) ** 2, axis=-1) / self.radius**2
        return self.mu * (np.clip(inside, 0, None) ** 2 if self.soft else inside > 0)


def line_integrals(geometry, balls, angles_rad):
    """Return float64 (n, n_v, n_u): the ray to each pixel through all balls, worked out in the laboratory's frame."""
    u = (np.arange(geometry.n_u) - (geometry.n_u - 1) / 2) * geometry.pixel_mm
    v = (np.arange(geometry.n_v) - (geometry.n_v - 1) / 2) * geometry.pixel_mm
    x, z = np.meshgrid(u, v)
    if geometry.kind == "cone":
        start = np.array([0.0, -geometry.source_axis_mm, 0.0])
        ray = np.stack([x, np.full_like(x, geometry.source_detector_mm), z], axis=-1)
        ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    else:
        start = np.stack([x, np.zeros_like(x), z], axis=-1)
        ray = np.broadcast_to([0.0, 1.0, 0.0], start.shape)
    result = np.zeros((len(angles_rad), geometry.n_v, geometry.n_u))
    for n, angle in enumerate(angles_rad):
        for ball in balls:
            cx, cy, cz = ball.centre
            centre = np.array(
                [
                    cx * np.cos(angle) - cy * np.sin(angle) + geometry.axis_offset_mm,
                    cx * np.sin(angle) + cy * np.cos(angle),
                    cz,
                ]
            )
            reach = centre - start
            miss_squared = np.sum(reach * reach, axis=-1) - np.sum(reach * ray, axis=-1) ** 2
            result[n] += ball.integral(miss_squared)
    return result


def make_block(kind, counts, *, angles_rad=None, acquisition=None):
    counts = np.asarray(counts, dtype=np.uint16)
    n = len(counts)
    acquisition = np.arange(n) if acquisition is None else np.asarray(acquisition)
    return ProjectionBlock(
        run_uid="a run",
        kind=kind,
        counts=counts,
        acquisition=acquisition.astype(np.int64),
        unique_ids=acquisition.astype(np.int64) + 1000,
        frame_times_s=1e9 + 0.01 * acquisition,
        received_times_s=1e9 + 0.01 * acquisition + 0.002,
        angles_rad=np.full(n, np.nan) if angles_rad is None else np.asarray(angles_rad, dtype=np.float64),
        angle_source="same stream",
    )


def counts_of(integrals):
    return np.rint(BEAM * np.exp(-integrals) + DARK).astype(np.uint16)


def darks(geometry, n=2):
    return make_block("dark", np.full((n, geometry.n_v, geometry.n_u), DARK))


def flats(geometry, n=2):
    return make_block("flat", np.full((n, geometry.n_v, geometry.n_u), DARK + BEAM))


def projections(geometry, balls, angles_rad, acquisition=None):
    integrals = line_integrals(geometry, balls, angles_rad)
    return make_block("projection", counts_of(integrals), angles_rad=angles_rad, acquisition=acquisition)
