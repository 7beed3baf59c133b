"""Draw what ring removal, phase retrieval and the hardening correction do to a slice.

Run `python docs/make_correction_pictures.py`: each scan is simulated, reconstructed twice through
`FilteredBackprojection`, and drawn into docs/images.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

from bluesky_jit.messages import ProjectionBlock
from bluesky_jit.tomo.corrections.hardening import hardening_of_spectrum
from bluesky_jit.tomo.corrections.phase import wavelength_mm
from bluesky_jit.tomo.corrections.wanted import Corrections
from bluesky_jit.tomo.geometry import ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection
from sim_devices.bodies import Bodies, attenuation, cylinder, joined, line_integrals, spheres
from sim_devices.physics import Detector, DetectorPhysics

mpl.use("Agg")
from matplotlib import pyplot as plt

IMAGES = Path(__file__).parent / "images"
DARK, BEAM = 100, 50_000
N_U = 384
PIXEL_MM = 0.02
N_ANGLES = 360
ANGLES = np.arange(N_ANGLES) * np.pi / N_ANGLES
SLICE = Grid.slice_xy(voxel_mm=PIXEL_MM, shape=(300, 300))
EXTENT_MM = (-3.0, 3.0, -3.0, 3.0)
# Materials of the pictures, by number: nothing, the body, the grains in it.
NOTHING, BODY, GRAIN = range(3)


def sample(seed: int, *, n_grains: int = 60) -> Bodies:
    """Return a cylinder with round grains in it, well inside the detector's field."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(-1, 1, (4000, 3)) * (2.4, 2.4, 0.3)
    sizes = rng.uniform(0.06, 0.3, 4000)
    kept: list[int] = []
    for n in range(4000):
        apart = all(np.linalg.norm(places[n] - places[m]) > sizes[n] + sizes[m] + 0.03 for m in kept)
        if apart and np.hypot(*places[n, :2]) + sizes[n] < 2.5:
            kept.append(n)
        if len(kept) == n_grains:
            break
    body = cylinder(centre_mm=(0, 0, 0), low_mm=-5, high_mm=5, radius_mm=2.8, material=BODY, displaced=NOTHING)
    return joined([body, spheres(places[kept], sizes[kept], material=GRAIN, displaced=BODY)])


def block(kind: str, counts: np.ndarray) -> ProjectionBlock:
    n = len(counts)
    numbers = np.arange(n)
    return ProjectionBlock(
        run_uid="picture",
        kind=kind,  # pyright: ignore[reportArgumentType]
        counts=counts,
        acquisition=numbers,
        unique_ids=numbers,
        frame_times_s=numbers * 0.02,
        received_times_s=numbers * 0.02,
        angles_rad=ANGLES if kind == "projection" else np.full(n, np.nan),
        angle_source="same stream",
    )


def mid_slice(
    geometry: ParallelGeometry,
    darks: np.ndarray,
    flats: np.ndarray,
    counts: np.ndarray,
    corrections: Corrections | None,
) -> np.ndarray:
    reconstruction = FilteredBackprojection(geometry, n_projections=N_ANGLES, corrections=corrections)
    for kind, frames in (("dark", darks), ("flat", flats), ("projection", counts)):
        reconstruction.push(block(kind, frames))
    reconstruction.settle(drained=True)
    made = reconstruction.slices((SLICE,))
    if made is None:
        raise RuntimeError("nothing was reconstructed")
    return made.images[0][0]


def draw(path: Path, panels: list[tuple[str, np.ndarray]], top: float) -> None:
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels) + 0.8, 4.3), layout="constrained", dpi=110)
    shown = None
    for axis, (title, image) in zip(axes, panels, strict=True):
        shown = axis.imshow(image, cmap="gray", vmin=0, vmax=top, origin="lower", extent=EXTENT_MM)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("x / mm", fontsize=8)
        axis.tick_params(labelsize=7)
    if shown is not None:
        figure.colorbar(shown, ax=axes, label="attenuation / mm⁻¹", shrink=0.85)
    figure.savefig(path)
    plt.close(figure)


def rings() -> str:
    geometry = ParallelGeometry(n_u=N_U, n_v=1, pixel_mm=PIXEL_MM)
    contrasts = np.array([0.0, 0.25, 0.4])
    bodies = sample(1)
    detector = Detector(
        DetectorPhysics.ideal(photons=50_000, counts_per_photon=1.0, gain_error=0.02, ring_error=0.01), 1, N_U
    )

    def exposed(integrals, beam=True):
        return detector.expose(integrals, time_s=0.0, beam=beam, exposure_s=0.02)

    darks = np.stack([exposed(None, beam=False) for _ in range(20)])
    flats = np.stack([exposed(np.zeros((1, N_U))) for _ in range(50)])
    counts = np.stack([exposed(line_integrals(bodies, bodies.contrasts(contrasts), geometry, a)) for a in ANGLES])
    corrections = Corrections(ring_width=3, ring_projections=N_ANGLES)
    before, after = (mid_slice(geometry, darks, flats, counts, c) for c in (None, corrections))
    truth = attenuation(bodies, bodies.contrasts(contrasts), SLICE)[0]
    draw(IMAGES / "rings.png", [("as measured", before), ("ring_width = 3", after), ("truth", truth)], 0.5)
    return f"rings: rms error {rms(before - truth):.4f} -> {rms(after - truth):.4f} /mm"


def phase() -> str:
    n_v = 96
    geometry = ParallelGeometry(n_u=N_U, n_v=n_v, pixel_mm=PIXEL_MM)
    energy_kev, delta_beta, propagation_mm = 25.0, 500.0, 3000.0
    contrasts = np.array([0.0, 0.05, 0.08])
    bodies = sample(1)
    fine = 2
    finer = ParallelGeometry(n_u=fine * N_U, n_v=fine * n_v, pixel_mm=PIXEL_MM / fine)
    rng = np.random.default_rng(3)
    wavelength = wavelength_mm(energy_kev)
    f_v, f_u = (np.fft.fftfreq(2 * n, finer.pixel_mm) for n in (finer.n_v, finer.n_u))
    propagator = np.exp(-1j * np.pi * wavelength * propagation_mm * (f_v[:, None] ** 2 + f_u**2))
    counts = np.empty((N_ANGLES, n_v, N_U), np.uint16)
    for n, angle in enumerate(ANGLES):
        integrals = line_integrals(bodies, bodies.contrasts(contrasts), finer, angle)
        mirrored = np.pad(integrals, ((0, finer.n_v), (0, finer.n_u)), mode="symmetric")
        wave = np.exp(-(1 + 1j * delta_beta) * mirrored / 2)
        seen = np.abs(np.fft.ifft2(np.fft.fft2(wave) * propagator))[: finer.n_v, : finer.n_u] ** 2
        photons = 2000 * seen.reshape(n_v, fine, N_U, fine).mean((1, 3))
        counts[n] = DARK + np.minimum(10 * rng.poisson(photons), 65_000)
    darks = np.full((1, n_v, N_U), DARK, np.uint16)
    flats = np.full((1, n_v, N_U), DARK + 20_000, np.uint16)
    corrections = Corrections(delta_beta=delta_beta, energy_kev=energy_kev, propagation_mm=propagation_mm)
    before, after = (mid_slice(geometry, darks, flats, counts, c) for c in (None, corrections))
    truth = attenuation(bodies, bodies.contrasts(contrasts), SLICE)[0]
    draw(IMAGES / "phase.png", [("as measured", before), ("delta_beta = 500", after), ("truth", truth)], 0.12)
    return f"phase: rms error {rms(before - truth):.4f} -> {rms(after - truth):.4f} /mm"


def hardening() -> str:
    geometry = ParallelGeometry(n_u=N_U, n_v=1, pixel_mm=PIXEL_MM)
    # Of a beam between 30 and 80 keV, and aluminium's attenuation there (NIST XCOM × 2.699 g/cm³), 1/mm.
    weights, aluminium = np.array([0.3, 0.4, 0.2, 0.1]), np.array([0.3045, 0.1534, 0.0750, 0.0545])
    bodies = sample(1, n_grains=12)
    # The grains are holes.
    lengths = [line_integrals(bodies, bodies.contrasts(np.array([0.0, 1.0, 0.0])), geometry, a) for a in ANGLES]
    passed = np.stack([sum(w * np.exp(-m * t) for w, m in zip(weights, aluminium, strict=True)) for t in lengths])
    counts = np.rint(DARK + BEAM * passed).astype(np.uint16)
    darks, flats = (np.full((1, 1, N_U), value, np.uint16) for value in (DARK, DARK + BEAM))
    coefficients = hardening_of_spectrum(weights, aluminium, thickness_mm=5.6)
    before, after = (mid_slice(geometry, darks, flats, counts, c) for c in (None, Corrections(hardening=coefficients)))
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.1), layout="constrained", dpi=110)
    for axis, (title, image) in zip(axes, [("as measured", before), ("hardening set", after)], strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=0.2, origin="lower", extent=EXTENT_MM)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("x / mm", fontsize=8)
    x = (np.arange(300) - 149.5) * PIXEL_MM
    for image, title in ((before, "as measured"), (after, "hardening set")):
        axes[2].plot(x, image[150], label=title)
    axes[2].axhline(weights @ aluminium, color="black", linestyle=":", label="thin aluminium in this beam")
    axes[2].set_xlabel("x / mm", fontsize=8)
    axes[2].set_ylabel("attenuation / mm⁻¹", fontsize=8)
    axes[2].legend(fontsize=8)
    figure.savefig(IMAGES / "hardening.png")
    plt.close(figure)
    return f"hardening: coefficients {', '.join(f'{c:.4f}' for c in coefficients)}"


def rms(difference: np.ndarray) -> float:
    """Return the rms over the body."""
    n = (np.arange(len(difference)) - (len(difference) - 1) / 2) * PIXEL_MM
    return float(np.sqrt(np.mean(difference[np.hypot(n, n[:, None]) < 2.5] ** 2)))


if __name__ == "__main__":
    for make in (rings, phase, hardening):
        sys.stdout.write(make() + "\n")
