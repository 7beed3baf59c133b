"""The paper's two experiments, simulated: recordings of the dissolving tablet that training is measured on.

A recording is made once and kept in a folder. Training takes its pairs from one, held-out pairs come from a
later one of the same sample, so that no projection is in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bluesky_jit.bench.provenance import code_digest
from bluesky_jit.learn.region import Cylinder
from bluesky_jit.messages import FrameKind, ProjectionBlock
from bluesky_jit.tomo.geometry import ConeGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.kernels.numba import NumbaKernel
from bluesky_jit.tomo.live import FilteredBackprojection
from sim_devices.phantom import ExperimentName, Phantom, experiment
from sim_devices.physics import Detector, DetectorPhysics

EXPERIMENTS: tuple[ExperimentName, ...] = ("A", "B")
SEEDS = (11, 12, 13)
"""Samples that figures are measured on. Nothing may be tuned on them."""
TUNING_SEEDS = (1, 2, 3)
"""Samples for whoever chooses a network, a recipe or a limit."""
PHOTONS = 600.0
"""Photons of the open beam in a pixel and frame: slices by filtered backprojection come out at 16 dB."""
FRAME_S = 0.012
REFERENCE_FRAMES = 100
"""Darks and flats: their noise is in both halves of a pair, so it must be small beside that of a projection."""
TRAINING_START_S, HELD_OUT_START_S = 10.0, 30.0
"""When recordings begin, in s after the tablet was put in: first its bubbles must have risen."""
JAR = (0.92, 0.84)
"""The jar's radius and half height as parts of the field's (sim_devices/phantom.py)."""
MADE_BY = ("sim_devices", "bluesky_jit.tomo.geometry", "bluesky_jit.bench.experiments")
"""What a recording depends on: one that other code has made is made anew."""
MOMENTS = 8
"""Moments of a turn that the truth is averaged over: no reconstruction of a turn can show less motion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Describe a scan: the scanner, how many angles it takes in a turn, and for how many turns a recording lasts.

    frame_spacing: projections between the frames of a sequence; held_out: pairs that an accuracy is measured on.
    """

    geometry: ConeGeometry
    angles_per_turn: int
    turns: int
    frame_spacing: int
    held_out: int

    @property
    def points(self) -> int:
        """Return the points across a slice."""
        return self.geometry.n_u


FULL = Setup(
    geometry=ConeGeometry(n_u=192, n_v=160, pixel_mm=0.8, source_axis_mm=441.4, source_detector_mm=1069),
    angles_per_turn=150,
    turns=7,
    frame_spacing=60,
    held_out=3200,
)
"""The paper's scanner with pixels four times as large; 7 turns are 12.6 s, beside the paper's 12 s."""
QUICK = Setup(
    geometry=ConeGeometry(n_u=64, n_v=56, pixel_mm=2.4, source_axis_mm=441.4, source_detector_mm=1069),
    angles_per_turn=40,
    turns=2,
    frame_spacing=16,
    held_out=64,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """Hold turns of one sample: projections uint16 (n, n_v, n_u), and darks and flats likewise."""

    setup: Setup
    phantom: Phantom
    start_s: float
    projections: np.ndarray
    darks: np.ndarray
    flats: np.ndarray

    def window(self, *, frames: int = 1) -> FilteredBackprojection:
        """Return a reconstruction, in one thread, that has taken every projection in and kept it."""
        setup = self.setup
        reconstruction = FilteredBackprojection(
            setup.geometry,
            n_projections=setup.angles_per_turn,
            history=len(self.projections) - setup.angles_per_turn,
            frames=frames,
            frame_spacing=setup.frame_spacing,
            kernel=NumbaKernel(),
        )
        reconstruction.push(self._block("dark", self.darks))
        reconstruction.push(self._block("flat", self.flats))
        reconstruction.push(self._block("projection", self.projections))
        return reconstruction

    @property
    def jar(self) -> Cylinder:
        """Return what the sample fills."""
        radius_mm, half_height_mm = self.setup.geometry.cylinder_mm
        return Cylinder(radius_mm=JAR[0] * radius_mm, half_height_mm=JAR[1] * half_height_mm)

    @cached_property
    def moments_s(self) -> np.ndarray:
        """Return when each projection was taken, float64 (n,), in s after the tablet was put in."""
        return self.start_s + FRAME_S * np.arange(len(self.projections))

    def truth(self, grid: Grid, *, until: int) -> np.ndarray:
        """Return float32 (ny, nx) in 1/mm: the noise-free slice, averaged over the turn that ends at a projection."""
        turn = self.moments_s[until - self.setup.angles_per_turn + 1 : until + 1]
        chosen = turn[np.linspace(0, len(turn) - 1, MOMENTS).round().astype(int)]
        images = [self.phantom.attenuation(grid, float(moment), oversample=2)[0] for moment in chosen]
        return np.mean(images, axis=0)

    def _block(self, kind: FrameKind, counts: np.ndarray) -> ProjectionBlock:
        numbers = np.arange(len(counts))
        angles = 2 * np.pi * numbers / self.setup.angles_per_turn
        return ProjectionBlock(
            run_uid=f"{self.phantom.name}-{self.phantom.seed}",
            kind=kind,
            counts=counts,
            acquisition=numbers,
            unique_ids=numbers,
            frame_times_s=FRAME_S * numbers,
            received_times_s=FRAME_S * numbers,
            angles_rad=angles if kind == "projection" else np.full(len(counts), np.nan),
            angle_source="same stream",
        )


def recording(setup: Setup, name: ExperimentName, seed: int, start_s: float, folder: Path) -> Recording:
    """Return a recording of an experiment from a moment on, from the folder when it is there."""
    radius_mm, half_height_mm = setup.geometry.cylinder_mm
    phantom = experiment(name, seed=seed, radius_mm=radius_mm, half_height_mm=half_height_mm)
    path = folder / f"{name}-{seed}-{start_s:g}s-{setup.geometry.n_u}-{setup.turns}-{code_digest(*MADE_BY)}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Whole or not at all, should this be stopped half way.
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as file:
            np.savez(file, allow_pickle=False, **_exposed(setup, phantom, start_s))
        unfinished.replace(path)
    with np.load(path) as kept:
        return Recording(setup=setup, phantom=phantom, start_s=start_s, **{key: kept[key] for key in kept.files})


def _exposed(setup: Setup, phantom: Phantom, start_s: float) -> dict[str, np.ndarray]:
    """Expose darks, flats and projections, with nothing but photon noise; the sample moves from frame to frame."""
    geometry = setup.geometry
    physics = DetectorPhysics.ideal(photons=PHOTONS, nominal_exposure_s=FRAME_S)
    # The noise of a later recording of the same sample is not that of an earlier one.
    detector = Detector(physics, geometry.n_v, geometry.n_u, seed=1000 * phantom.seed + round(start_s))

    def frame(line_integrals: np.ndarray | None) -> np.ndarray:
        return detector.expose(line_integrals, time_s=0.0, beam=line_integrals is not None, exposure_s=FRAME_S)

    angles = 2 * np.pi * np.arange(setup.turns * setup.angles_per_turn) / setup.angles_per_turn
    return {
        "darks": np.stack([frame(None) for _ in range(REFERENCE_FRAMES)]),
        "flats": np.stack([frame(np.zeros(detector.shape)) for _ in range(REFERENCE_FRAMES)]),
        "projections": np.stack(
            [frame(phantom.line_integrals(geometry, a, start_s + FRAME_S * k)) for k, a in enumerate(angles.tolist())]
        ),
    }


def slices(setup: Setup, heights: Sequence[float]) -> dict[str, Grid]:
    """Return whole slices, horizontal and upright, at parts of the field's half height and radius."""
    geometry = setup.geometry
    radius_mm, half_height_mm = geometry.cylinder_mm
    voxel_mm = 2 * radius_mm / setup.points
    across, high = setup.points, round(2 * half_height_mm / voxel_mm)
    made: dict[str, Grid] = {}
    for part in heights:
        made[f"horizontal at {part:g}"] = Grid.slice_xy(
            z_mm=part * half_height_mm, voxel_mm=voxel_mm, shape=(across, across)
        )
        made[f"upright at {part:g}"] = Grid.slice_xz(y_mm=part * radius_mm, voxel_mm=voxel_mm, shape=(high, across))
    return made


def seen(setup: Setup, grid: Grid) -> np.ndarray:
    """Return bool (ny, nx): which points of a slice every projection sees."""
    radius_mm, half_height_mm = setup.geometry.cylinder_mm
    points = grid.points()[0]
    return (np.hypot(points[..., 0], points[..., 1]) <= radius_mm) & (abs(points[..., 2]) <= half_height_mm)
