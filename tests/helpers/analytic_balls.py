"""Balls whose line integrals are known exactly, projected with no help from the code under test."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

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
    columns = (np.arange(geometry.n_u) - (geometry.n_u - 1) / 2) * geometry.pixel_mm + geometry.detector_u_mm
    rows = (np.arange(geometry.n_v) - (geometry.n_v - 1) / 2) * geometry.pixel_mm + geometry.detector_v_mm
    lean = Rotation.from_euler(
        "yxz", [geometry.detector_roll_rad, geometry.detector_pitch_rad, geometry.detector_yaw_rad]
    )
    tilt = Rotation.from_euler("x", geometry.axis_tilt_rad)
    result = np.zeros((len(angles_rad), geometry.n_v, geometry.n_u))
    for n, angle in enumerate(angles_rad):
        shift = shifts_at(geometry.calibration, angle)
        u, v = np.meshgrid(columns + shift["detector_u_mm"], rows + shift["detector_v_mm"])
        pixels = lean.apply(np.stack([u, np.zeros_like(u), v], axis=-1).reshape(-1, 3)).reshape(*u.shape, 3)
        if geometry.kind == "cone":
            start = np.array([0.0, -geometry.source_axis_mm, 0.0])
            ray = pixels + np.array([0.0, geometry.source_detector_mm, 0.0])
            ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
        else:
            start, ray = pixels, np.broadcast_to([0.0, 1.0, 0.0], pixels.shape)
        for ball in balls:
            centre = (tilt * Rotation.from_euler("z", angle)).apply(ball.centre)
            centre += [geometry.axis_offset_mm + shift["sample_x_mm"], shift["sample_y_mm"], shift["sample_z_mm"]]
            reach = centre - start
            miss_squared = np.sum(reach * reach, axis=-1) - np.sum(reach * ray, axis=-1) ** 2
            result[n] += ball.integral(miss_squared)
    return result


def shifts_at(calibration, angle_rad):
    """Return every kind of shift at one angle; the measured ones, if any, are in ascending order from 0 on."""
    kinds = ("detector_u_mm", "detector_v_mm", "sample_x_mm", "sample_y_mm", "sample_z_mm")
    if calibration is None:
        return dict.fromkeys(kinds, 0.0)
    angles = [*calibration.angles_rad, calibration.angles_rad[0] + 2 * np.pi]
    values = {kind: getattr(calibration, kind) or (0.0,) * len(calibration.angles_rad) for kind in kinds}
    return {kind: np.interp(angle_rad % (2 * np.pi), angles, [*of, of[0]]) for kind, of in values.items()}


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
