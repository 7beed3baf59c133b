"""The simulated tablet as the demo sees it: real backprojection noise, with the truth, and a network trained on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bluesky_jit.learn.buffer import PairBuffer
from bluesky_jit.learn.model import make_denoiser, make_model
from bluesky_jit.messages import FrameKind, Pairs, ProjectionBlock
from bluesky_jit.tomo.geometry import ConeGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection
from sim_devices.phantom import ExperimentName, experiment
from sim_devices.physics import Detector, DetectorPhysics

PHOTONS = 1000
"""As in the demo."""
N_U, N_V = 160, 128
GEOMETRY = ConeGeometry(n_u=N_U, n_v=N_V, pixel_mm=0.96, source_axis_mm=441.4, source_detector_mm=1069.0)
RADIUS_MM, HALF_HEIGHT_MM = 30.0, 23.0
ANGLES, TURN_S = 150, 1.8
UPRIGHT = (112, N_U)
SHOWN = {
    "XY": Grid.slice_xy(voxel_mm=GEOMETRY.voxel_mm, shape=(N_U, N_U)),
    "XZ": Grid.slice_xz(voxel_mm=GEOMETRY.voxel_mm, shape=UPRIGHT),
}

Network = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Hold a slice as the two halves show it, with the truth; mask: where every projection sees the sample."""

    u: np.ndarray
    v: np.ndarray
    truth: np.ndarray
    mask: np.ndarray

    @property
    def raw(self) -> np.ndarray:
        return (self.u + self.v) / 2

    @property
    def noise(self) -> float:
        """Return the noise of a raw pixel."""
        return float(np.std(((self.u - self.v) / 2)[self.mask]))

    def with_feature(self, feature: np.ndarray) -> Seen:
        return Seen(u=self.u + feature, v=self.v + feature, truth=self.truth + feature, mask=self.mask)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Hold two scans of one experiment, alike but for their noise: the first is also learnt from."""

    shown: dict[str, tuple[Seen, Seen]]
    elsewhere: list[np.ndarray]
    """Slices apart from those on show, (u or v, ny, nx)."""

    def pure_noise(self, name: str) -> Seen:
        """Return the truth with noise of the scanner's: what two scans of the same thing differ by."""
        first, second = self.shown[name]
        return Seen(
            u=first.truth + (first.u - second.u) / np.float32(np.sqrt(2)),
            v=first.truth + (first.v - second.v) / np.float32(np.sqrt(2)),
            truth=first.truth,
            mask=first.mask,
        )


def scan(name: ExperimentName, *, seed: int, noise_seed: int, photons: int = PHOTONS) -> FilteredBackprojection:
    """Take one turn of the moving phantom."""
    phantom = experiment(name, seed=seed, radius_mm=RADIUS_MM, half_height_mm=HALF_HEIGHT_MM)
    detector = Detector(DetectorPhysics(photons=photons), N_V, N_U, seed=noise_seed)
    made = FilteredBackprojection(GEOMETRY, n_projections=ANGLES)
    for kind, beam in (("dark", False), ("flat", True)):
        counts = [detector.expose(np.zeros((N_V, N_U)), time_s=0.0, beam=beam, exposure_s=0.02) for _ in range(20)]
        made.push(block(kind, np.stack(counts), np.full(20, np.nan), np.arange(20.0)))  # type: ignore[arg-type]
    times_s = TURN_S * np.arange(ANGLES) / ANGLES
    angles_rad = 2 * np.pi * times_s / TURN_S
    counts = [
        detector.expose(phantom.line_integrals(GEOMETRY, angle_rad, time_s), time_s=time_s, beam=True, exposure_s=0.02)
        for angle_rad, time_s in zip(angles_rad, times_s, strict=True)
    ]
    made.push(block("projection", np.stack(counts), angles_rad, times_s))
    return made


def block(kind: FrameKind, counts: np.ndarray, angles_rad: np.ndarray, times_s: np.ndarray) -> ProjectionBlock:
    numbers = np.arange(len(counts))
    return ProjectionBlock(
        run_uid="",
        kind=kind,
        counts=counts,
        acquisition=numbers,
        unique_ids=numbers,
        frame_times_s=times_s,
        received_times_s=times_s,
        angles_rad=angles_rad,
        angle_source="same stream",
    )


def halves(reconstruction: FilteredBackprojection, grid: Grid) -> np.ndarray:
    """Return both halves of a slice, float32 (2, ny, nx)."""
    splits = reconstruction.pairs((grid,))
    assert splits is not None
    return splits.reshape(2, *grid.shape[-2:])


def make_sample(name: ExperimentName, *, seed: int = 5) -> Sample:
    first, second = (scan(name, seed=seed, noise_seed=noise_seed) for noise_seed in (1, 2))
    phantom = experiment(name, seed=seed, radius_mm=RADIUS_MM, half_height_mm=HALF_HEIGHT_MM)
    shown = {}
    for label, grid in SHOWN.items():
        truth = phantom.attenuation(grid, TURN_S / 2, oversample=2)[0]
        points = grid.points()[0]
        mask = np.hypot(points[..., 0], points[..., 1]) < RADIUS_MM
        first_seen, second_seen = (
            Seen(u=both[0], v=both[1], truth=truth, mask=mask) for both in (halves(it, grid) for it in (first, second))
        )
        shown[label] = (first_seen, second_seen)
    heights_mm = np.array([-12, -8, -4, -0.5, 0.5, 4, 8, 12])
    elsewhere = [SHOWN["XY"].moved((0.0, 0.0, height)) for height in heights_mm]
    elsewhere += [SHOWN["XZ"].moved((0.0, offset, 0.0)) for offset in heights_mm]
    return Sample(shown=shown, elsewhere=[halves(first, grid) for grid in elsewhere])


def train(sample: Sample, *, steps: int = 600) -> Network:
    """Train the default network on slices apart from those on show; return it as a function of a slice (ny, nx)."""
    rng = np.random.default_rng(0)
    model, buffer = make_model("unet-fast", seed=0), PairBuffer(640, seed=0)
    for step in range(steps):
        if step % 5 == 0:
            cuts = []
            for slice_ in rng.integers(len(sample.elsewhere), size=32):
                both = sample.elsewhere[slice_]
                row, column = (rng.integers(size - 19) for size in both.shape[1:])
                cuts.append(both[:, row : row + 20, column : column + 20])
            pairs = np.stack(cuts)[:, :, None, None]
            buffer.push(Pairs(u=pairs[:, 0], v=pairs[:, 1]))
        model.train_step(buffer.sample(32))
    denoiser = make_denoiser("unet-fast")
    denoiser.load(model.snapshot())
    return lambda image: denoiser.apply(image[None, None])


def other_sample(sample: Sample) -> Sample:
    """Return a sample without detail, a smooth ball, seen with the same scanner's noise; nothing of it is on show."""
    y, x = np.mgrid[:N_U, :N_U] - N_U / 2
    ball = (0.03 * np.exp(-(x**2 + y**2) / (2 * 40**2))).astype(np.float32)
    seen = sample.pure_noise("XY")
    return Sample(shown={}, elsewhere=[ball + np.stack([seen.u, seen.v]) - seen.truth])
