"""What the reconstruction benchmarks work on: the paper's scanner, a turn of its frames, and grids of every kind."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bluesky_jit.messages import FrameKind, ProjectionBlock
from bluesky_jit.tomo.corrections.darkflat import DarkFlat
from bluesky_jit.tomo.geometry import ConeGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.jobs import Jobs, Slots
from bluesky_jit.tomo.prepare import FrameInfo, Preparation
from bluesky_jit.tomo.window import quantise
from sim_devices.phantom import experiment
from sim_devices.physics import Detector, DetectorPhysics

SCANNER = ConeGeometry(n_u=768, n_v=647, pixel_mm=0.2, source_axis_mm=441.4, source_detector_mm=1069)
"""The paper's set-up: a turn of 1.8 s, in which its detector takes a frame every 12 ms."""
ANGLES_PER_TURN = 150
FRAME_S = 0.012
POINTS = 1024
"""Points across a slice, about as many as the paper's (1000)."""
BATCH, PATCH = 32, 20
"""Training pairs in a batch and points across each, as in the paper."""
WITHIN = 0.95
"""Part of the field of view's radius that slices reach, so that most of their points lie on the detector."""
N_SPLITS = 2
AXES = {
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "upright": ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    "oblique": ((1.0, 0.3, 0.2), (-0.3, 1.0, 0.6)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Hold a turn of frames of the simulated jar, raw and filtered.

    counts: uint16 (n, n_v, n_u); angles_rad: float64 (n,); filtered: float32 (n, n_v, n_u) in 1/mm; slots: the same as
    a window holds it; points: across slices.
    """

    geometry: ConeGeometry
    angles_rad: np.ndarray
    dark: np.ndarray
    flat: np.ndarray
    counts: np.ndarray
    filtered: np.ndarray
    slots: Slots
    points: int

    @property
    def grids(self) -> dict[str, Grid]:
        """Return a slice of each orientation, a little above the middle."""
        voxel_mm = 2 * WITHIN * self.geometry.cylinder_mm[0] / self.points
        return {
            name: Grid.centred(
                centre=(0, 0, 5 * voxel_mm),
                x_axis=x,
                y_axis=y,
                voxel_mm=voxel_mm,
                shape=(1, self.points, self.points),
            )
            for name, (x, y) in AXES.items()
        }

    def patches(self, size: int = PATCH, n: int = BATCH, *, seed: int = 0) -> tuple[Grid, ...]:
        """Return patches for a batch, drawn from a horizontal slice and its neighbourhood, like the trainer's."""
        rng = np.random.default_rng(seed)
        whole = self.grids["axial"]
        corners = rng.integers(0, self.points - size, (n, 2))
        heights = rng.uniform(-10, 10, n) * whole.z_step[2]
        return tuple(
            whole.patch((0, int(j), int(i)), (1, size, size)).moved((0, 0, float(height)))
            for (j, i), height in zip(corners, heights, strict=True)
        )

    def jobs(self, grids: tuple[Grid, ...], *, splits: int = 1, n: int | None = None) -> Jobs:
        """Ask for grids from the first n projections, by default all, in one or several splits."""
        n = len(self.angles_rad) if n is None else n
        return Jobs(
            projections=self.slots,
            matrices=self.geometry.matrices(self.angles_rad[:n]),
            slots=np.arange(n),
            scales=np.full(n, np.pi / n),
            splits=np.arange(n) % splits,
            n_splits=splits,
            grids=grids,
        )

    def block(self, kind: FrameKind, frames: np.ndarray, first: int = 0) -> ProjectionBlock:
        """Wrap frames (n, n_v, n_u) as the intake does; projections are numbered, and turn on, from `first`."""
        numbers = first + np.arange(len(frames))
        n = len(self.angles_rad)
        angles = 2 * np.pi * numbers / n if kind == "projection" else np.full(len(frames), np.nan)
        return ProjectionBlock(
            run_uid="bench",
            kind=kind,
            counts=frames,
            acquisition=numbers,
            unique_ids=numbers,
            frame_times_s=FRAME_S * numbers,
            received_times_s=FRAME_S * numbers,
            angles_rad=angles,
            angle_source="same stream",
        )

    def dark_flat(self) -> DarkFlat:
        """Return the darks and flats that the frames are compared with."""
        references = DarkFlat(self.geometry.n_v, self.geometry.n_u)
        references.add_darks(self.dark)
        references.add_flats(self.flat, times_s=np.zeros(len(self.flat)), after=0)
        return references


def make_turn(*, quick: bool = False) -> Turn:
    """Expose a turn of the simulated jar, in full or with an eighth of the pixels and a quarter of the angles."""
    geometry, n, points = SCANNER, ANGLES_PER_TURN, POINTS
    if quick:
        geometry, n, points = replace(SCANNER, n_u=96, n_v=80, pixel_mm=1.6), 40, 128
    radius_mm, half_height_mm = geometry.cylinder_mm
    phantom = experiment("A", seed=0, radius_mm=radius_mm, half_height_mm=half_height_mm)
    detector = Detector(DetectorPhysics(), geometry.n_v, geometry.n_u)
    angles = 2 * np.pi * np.arange(n) / n

    def expose(line_integrals: np.ndarray | None) -> np.ndarray:
        return detector.expose(line_integrals, time_s=0.0, beam=line_integrals is not None, exposure_s=FRAME_S)

    dark = np.stack([expose(None) for _ in range(4)])
    flat = np.stack([expose(np.zeros(detector.shape)) for _ in range(4)])
    counts = np.stack([expose(phantom.line_integrals(geometry, float(angle), 10.0)) for angle in angles])
    turn = Turn(
        geometry=geometry,
        angles_rad=angles,
        dark=dark,
        flat=flat,
        counts=counts,
        filtered=np.empty(counts.shape, dtype=np.float32),
        slots=Slots(
            values=np.zeros((n, geometry.n_v + 2, geometry.n_u + 2), dtype=np.int16),
            scales=np.ones(n, dtype=np.float32),
            versions=np.zeros(n, dtype=np.int64),
        ),
        points=points,
    )
    preparation = Preparation(geometry, dark_flat=turn.dark_flat())
    for k in range(n):
        info = FrameInfo(angle_rad=float(angles[k]), acquisition=k, time_s=FRAME_S * k)
        turn.filtered[k], _ = preparation.filtered(counts[k], info)
        turn.slots.scales[k] = quantise(turn.filtered[k], turn.slots.values[k])
    return turn
