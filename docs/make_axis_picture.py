"""Draw what the estimate of the rotation axis does to a slice: docs/images/axis.png.

Run `python docs/make_axis_picture.py`. Half a turn of a parallel beam and a full turn of a cone are simulated with an
axis that lies four pixels from where it is said to be, and reconstructed through `FilteredBackprojection`.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np

from bluesky_jit.messages import FrameKind, ProjectionBlock
from bluesky_jit.tomo.axis.estimate import AxisEstimate
from bluesky_jit.tomo.geometry import ConeGeometry, Geometry, ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection
from sim_devices.phantom import experiment
from sim_devices.physics import Detector, DetectorPhysics

mpl.use("Agg")
from matplotlib import pyplot as plt

IMAGE = Path(__file__).parent / "images" / "axis.png"
WRONG_PX = 4.0
N_ANGLES = 300
PARALLEL = ParallelGeometry(n_u=256, n_v=8, pixel_mm=0.5)
CONE = ConeGeometry(n_u=256, n_v=8, pixel_mm=1.2, source_axis_mm=441.4, source_detector_mm=1069.0)


def block(kind: FrameKind, counts: np.ndarray, angles_rad: np.ndarray | None = None) -> ProjectionBlock:
    n = len(counts)
    return ProjectionBlock(
        run_uid="picture",
        kind=kind,
        counts=counts,
        acquisition=np.arange(n),
        unique_ids=np.arange(n),
        frame_times_s=np.arange(n) * 0.01,
        received_times_s=np.arange(n) * 0.01,
        angles_rad=np.full(n, np.nan) if angles_rad is None else angles_rad,
        angle_source="same stream",
    )


def slices(geometry: Geometry, arc_rad: float) -> tuple[np.ndarray, np.ndarray, AxisEstimate]:
    """Return the slice with the axis as given, with the axis as estimated, and the estimate."""
    sample = experiment("B", seed=2, radius_mm=0.95 * geometry.radius_mm, half_height_mm=30.0)
    real = replace(geometry, axis_offset_mm=WRONG_PX * geometry.voxel_mm)
    detector = Detector(DetectorPhysics.ideal(photons=5000), geometry.n_v, geometry.n_u, 1)
    angles = np.arange(N_ANGLES) * arc_rad / N_ANGLES

    def expose(lines: np.ndarray | None) -> np.ndarray:
        return detector.expose(lines, time_s=0.0, beam=lines is not None, exposure_s=0.02)

    empty = np.zeros((geometry.n_v, geometry.n_u), dtype=np.float32)
    reconstruction = FilteredBackprojection(geometry, n_projections=N_ANGLES)
    reconstruction.push(block("dark", np.stack([expose(None) for _ in range(5)])))
    reconstruction.push(block("flat", np.stack([expose(empty) for _ in range(20)])))
    counts = np.stack([expose(sample.line_integrals(real, angle, 0.0)) for angle in angles])
    reconstruction.push(block("projection", counts, angles))
    size = int(1.9 * geometry.radius_mm / geometry.voxel_mm)
    grid = Grid.slice_xy(voxel_mm=geometry.voxel_mm, shape=(size, size))

    def image() -> np.ndarray:
        made = reconstruction.slices((grid,))
        if made is None:
            raise RuntimeError("the window has no slice to show")
        return made.images[0][0]

    before, estimate = image(), reconstruction.estimate_axis()
    reconstruction.set_axis_offset(estimate.offset_mm)
    reconstruction.settle()
    return before, image(), estimate


def main() -> None:
    scans = (("parallel beam, half a turn", PARALLEL, np.pi), ("cone beam, a full turn", CONE, 2 * np.pi))
    figure, axes = plt.subplots(2, 2, figsize=(8.4, 8.8), layout="constrained")
    for row, (name, geometry, arc_rad) in zip(axes, scans, strict=True):
        before, after, estimate = slices(geometry, arc_rad)
        found = estimate.offset_mm / geometry.voxel_mm
        low, high = np.quantile(after, [0.002, 0.998])
        titles = (f"{name}: axis {WRONG_PX:g} px off", f"axis found: {found - WRONG_PX:+.2f} px off")
        for place, image, title in zip(row, (before, after), titles, strict=True):
            place.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower")
            place.set_title(title, fontsize=10)
            place.set_axis_off()
        sys.stdout.write(f"{name}: {found:.3f} px, confidence {estimate.confidence:.4f}\n")
    figure.savefig(IMAGE, dpi=80)


if __name__ == "__main__":
    main()
