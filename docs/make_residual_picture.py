"""Draw what the residual shows of an honest, a blurring and an inventing network: docs/images/residual.png.

Run `python docs/make_residual_picture.py`. A turn of the demo's tablet is simulated (experiment A, 192 columns, 1000
photons a pixel) and the default network trained on it for 1500 steps; the others are Gaussian blur of the raw slice,
and the honest slice with a crack drawn into it that is not there. The captions are those of `residual_figure`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from scipy.ndimage import gaussian_filter

from bluesky_jit.learn.buffer import PairBuffer
from bluesky_jit.learn.model import make_denoiser, make_model
from bluesky_jit.learn.noise2inverse import make_pairs
from bluesky_jit.learn.patch_sampler import PatchSampler
from bluesky_jit.learn.quality.residual import residual_figure
from bluesky_jit.learn.region import field_cylinder
from bluesky_jit.messages import FrameKind, ProjectionBlock
from bluesky_jit.tomo.geometry import ConeGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection
from sim_devices.phantom import experiment
from sim_devices.physics import Detector, DetectorPhysics

mpl.use("Agg")
from matplotlib import pyplot as plt

IMAGE = Path(__file__).parent / "images" / "residual.png"
GEOMETRY = ConeGeometry(n_u=192, n_v=160, pixel_mm=0.8, source_axis_mm=441.4, source_detector_mm=1069.0)
PHOTONS = 1000
ANGLES, TURN_S = 150, 1.8
STEPS = 1500
CRACK = 6
"""Strength of the crack, in units of the noise of a raw pixel."""


def block(kind: FrameKind, counts: np.ndarray, times_s: np.ndarray, angles_rad: np.ndarray) -> ProjectionBlock:
    numbers = np.arange(len(counts))
    return ProjectionBlock(
        run_uid="picture",
        kind=kind,
        counts=counts,
        acquisition=numbers,
        unique_ids=numbers,
        frame_times_s=times_s,
        received_times_s=times_s,
        angles_rad=angles_rad,
        angle_source="same stream",
    )


def scan() -> FilteredBackprojection:
    """Simulate a turn around the tablet."""
    region = field_cylinder(GEOMETRY)
    sample = experiment("A", seed=5, radius_mm=region.radius_mm, half_height_mm=region.half_height_mm)
    detector = Detector(DetectorPhysics(photons=PHOTONS), GEOMETRY.n_v, GEOMETRY.n_u, 1)
    made = FilteredBackprojection(GEOMETRY, n_projections=ANGLES)
    empty = np.zeros((GEOMETRY.n_v, GEOMETRY.n_u))
    blanks: tuple[tuple[FrameKind, bool], ...] = (("dark", False), ("flat", True))
    for kind, beam in blanks:
        counts = np.stack([detector.expose(empty, time_s=0.0, beam=beam, exposure_s=0.02) for _ in range(20)])
        made.push(block(kind, counts, np.arange(20.0), np.full(20, np.nan)))
    times_s = TURN_S * np.arange(ANGLES) / ANGLES
    angles_rad = 2 * np.pi * times_s / TURN_S
    counts = [
        detector.expose(sample.line_integrals(GEOMETRY, angle, at_s), time_s=at_s, beam=True, exposure_s=0.02)
        for angle, at_s in zip(angles_rad, times_s, strict=True)
    ]
    made.push(block("projection", np.stack(counts), times_s, angles_rad))
    return made


def pairs_of(reconstruction: FilteredBackprojection, grids: tuple[Grid, ...]) -> np.ndarray:
    splits = reconstruction.pairs(grids)
    if splits is None:
        raise RuntimeError("the window has nothing to learn from")
    return splits


def main() -> None:
    reconstruction = scan()
    grid = Grid.slice_xy(voxel_mm=GEOMETRY.voxel_mm, shape=(GEOMETRY.n_u, GEOMETRY.n_u))
    region = field_cylinder(GEOMETRY)
    sampler = PatchSampler(region, voxel_mm=GEOMETRY.voxel_mm, seed=0, shown=(grid,))
    buffer, model = PairBuffer(640, seed=0), make_model("unet-fast", seed=0)
    for step in range(STEPS):
        if step % 5 == 0:
            buffer.push(make_pairs(pairs_of(reconstruction, sampler.train())))
        model.train_step(buffer.sample(32))
    denoiser = make_denoiser("unet-fast")
    denoiser.load(model.snapshot())

    u, v = pairs_of(reconstruction, (grid,)).reshape(2, *grid.shape[1:])
    raw, mask = (u + v) / 2, region.contains(grid.points()[0])
    noise = float(np.std(((u - v) / 2)[mask]))
    y, x = np.mgrid[: raw.shape[0], : raw.shape[1]] - np.array(raw.shape)[:, None, None] // 2
    crack = np.float32(CRACK * noise) * ((np.abs(y + 30 - 0.3 * x) < 1) & (np.abs(x) < 20))
    honest = denoiser.apply(raw[None, None])
    rows = {
        "the default network": honest,
        "Gaussian blur, σ = 1.5 points": gaussian_filter(raw, 1.5),
        "a crack that is not there": honest + crack,
    }
    low, high = np.quantile(raw[mask], [0.005, 0.995])
    figure, axes = plt.subplots(len(rows), 4, figsize=(11.5, 9.6), layout="constrained")
    for row, (name, denoised) in zip(axes, rows.items(), strict=True):
        found = residual_figure(raw, denoised, u, v, mask=mask)
        residual = np.where(mask, raw - denoised, np.nan) / noise
        panels = (
            ("raw", np.where(mask, raw, np.nan), "gray", low, high),
            (name, np.where(mask, denoised, np.nan), "gray", low, high),
            (f"residual (±4 of its noise), correlation {found.correlation:.2f}", residual, "gray", -4, 4),
            (f"doubt: times what noise explains, at most {np.nanmax(found.doubt):.1f}", found.doubt, "magma", 0, 6),
        )
        drawn = [
            place.imshow(image, cmap=colours, vmin=bottom, vmax=top, origin="lower")
            for place, (_, image, colours, bottom, top) in zip(row, panels, strict=True)
        ]
        for place, (title, *_) in zip(row, panels, strict=True):
            place.set_title(title, fontsize=8)
            place.set_xticks([])
            place.set_yticks([])
            for edge in place.spines.values():
                edge.set_visible(False)
        figure.colorbar(drawn[-1], ax=row[-1], shrink=0.8)
        row[0].set_xlabel(found.verdict.split(":")[0], fontsize=9, loc="left")
        ratios = ", ".join(f"{ratio:.2f}" for ratio in found.spectrum_ratio)
        sys.stdout.write(
            f"{name}: variance {found.variance_ratio:.2f}, bands {ratios}, correlation {found.correlation:.2f}, offset "
            f"{found.offset:.2f}, doubt {np.nanmax(found.doubt):.1f} (limit {found.limit:.2f})\n  {found.verdict}\n"
        )
    figure.savefig(IMAGE, dpi=80)


if __name__ == "__main__":
    main()
