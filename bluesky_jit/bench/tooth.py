"""A real scan: the tooth of the TomoPy project. One detector row is learnt from, the other only measures."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console

from bluesky_jit.bench import curves
from bluesky_jit.bench.drawing import draw_pictures
from bluesky_jit.bench.figures import Figure, show, write, write_table
from bluesky_jit.bench.pair_source import BATCH
from bluesky_jit.intake.sources import open_scan
from bluesky_jit.learn.model import make_denoiser, make_model
from bluesky_jit.learn.noise2inverse import make_pairs
from bluesky_jit.learn.presets import preset_named
from bluesky_jit.learn.quality.accuracy import accuracy_of_patches
from bluesky_jit.messages import Pairs
from bluesky_jit.tomo.geometry import ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection

DATA_VARIABLE = "BLUESKY_JIT_TOOTH"
"""Environment variable that names the file when `--data` does not."""
AXIS_COLUMN = 296.0
"""Where the rotation axis lies in the file's frames, from TomoPy's own example."""
PRESETS = {"unet-fast": 5.0, "standard": 60.0}
"""CPU seconds of training of each."""
QUICK_S = 0.2
HELD_OUT = 640
WITHIN = 0.9
"""Part of the field's radius that patches and slices lie in."""
PICTURE = 512
"""Points across the slice that is drawn."""


def run(output: Path, *, quick: bool = False, data: Path | None = None) -> list[Figure]:
    """Learn row 0, measure on row 1; write tooth.json, tooth.md and tooth.png. Without the file, say so and go."""
    path = data or Path(os.environ.get(DATA_VARIABLE, ""))
    if not path.is_file():
        Console().print(f"there is no tooth.h5: give it with --data or {DATA_VARIABLE}; nothing is measured")
        return []
    output.mkdir(parents=True, exist_ok=True)
    window = load(path)
    geometry = window.geometry
    points = 96 if quick else PICTURE
    rows_mm = [(row - (geometry.n_v - 1) / 2) * geometry.voxel_mm for row in range(2)]
    whole = [
        Grid.slice_xy(z_mm=z, voxel_mm=2 * WITHIN * geometry.radius_mm / points, shape=(points, points))
        for z in rows_mm
    ]
    raw = window.slices((whole[1],))
    halves = window.pairs((whole[1],))
    if raw is None or halves is None:
        raise ValueError(f"{path} gives no slices: it lacks flats or projections")
    images = {"raw": raw.images[0][0]}
    figures: list[Figure] = []
    kept: dict[str, dict] = {}
    for name, seconds in PRESETS.items():
        preset = preset_named(name)
        model = make_model(preset, seed=0)
        source = _Patches(window, rows_mm[0], preset.patch, seed=0)
        held_out = _Patches(window, rows_mm[1], preset.patch, seed=1).several(64 if quick else HELD_OUT)
        lasted = QUICK_S if quick else seconds
        found = curves.train(model, source, {"held-out": held_out}, seconds=lasted, seed=0)
        denoiser = make_denoiser(preset)
        denoiser.load(model.snapshot())
        images[f"{name}, {lasted:g} s"] = denoiser.apply(raw.images[0][None])
        whole_slice = accuracy_of_patches(denoiser.apply(halves[0, 0])[None], make_pairs(halves)).value
        kept[name] = asdict(found)
        figures += _figures(f"{name}, {lasted:g} s", found, whole_slice)
    write(figures, output / "tooth.json", quick=quick, curves=kept)
    text = "Row 0 of the detector is learnt from. Row 1, none of whose pixels were, is measured on."
    write_table(figures, output / "tooth.md", "tooth: a real scan", text)
    rows = {"row 1": images, "detail": {name: _detail(image) for name, image in images.items()}}
    draw_pictures(rows, output / "tooth.png", unit="1/pixel")
    show(figures, "tooth: a real scan")
    return figures


def load(path: Path) -> FilteredBackprojection:
    """Reconstruct from a Data Exchange file, lengths in units of a pixel."""
    scan = open_scan(path)
    n_v, n_u = scan.frame_shape
    geometry = ParallelGeometry(n_u=n_u, n_v=n_v, pixel_mm=1.0, axis_offset_mm=AXIS_COLUMN - (n_u - 1) / 2)
    window = FilteredBackprojection(geometry, n_projections=scan.n_projections)
    for block in scan.blocks():
        window.push(block)
    window.settle(drained=True)
    return window


class _Patches:
    """Make pairs of patches in one plane, turned about its normal at random."""

    def __init__(self, window: FilteredBackprojection, z_mm: float, patch: int, *, seed: int) -> None:
        self._window = window
        self._z_mm = z_mm
        self._patch = patch
        self._rng = np.random.default_rng(seed)

    def batch(self) -> Pairs:
        """Return pairs of patches all over the plane."""
        rng, geometry = self._rng, self._window.geometry
        radius = WITHIN * geometry.radius_mm * np.sqrt(rng.random(BATCH))
        azimuth, turn = rng.uniform(0, 2 * np.pi, (2, BATCH))
        splits = self._window.pairs(
            tuple(
                Grid.tilted(
                    centre=(float(r * np.cos(a)), float(r * np.sin(a)), self._z_mm),
                    normal=(0, 0, 1),
                    rotation_rad=float(t),
                    voxel_mm=geometry.voxel_mm,
                    shape=(self._patch, self._patch),
                )
                for r, a, t in zip(radius, azimuth, turn, strict=True)
            )
        )
        if splits is None:
            raise RuntimeError("the window has no projections")
        return make_pairs(splits)

    def several(self, count: int) -> Pairs:
        """Return so many pairs."""
        batches = [self.batch() for _ in range(count // BATCH)]
        return Pairs(u=np.concatenate([pairs.u for pairs in batches]), v=np.concatenate([pairs.v for pairs in batches]))


def _figures(name: str, found: curves.Curve, whole_slice: float) -> list[Figure]:
    return [
        Figure(
            name=f"{name}: α of patches of the unseen row",
            value=found.accuracy["held-out"][-1],
            unit="",
            better="lower",
            note=f"{found.steps_per_s:.0f} steps/s; below 0.75 it beats the raw slice",
        ),
        Figure(
            name=f"{name}: α of the unseen row's whole slice",
            value=whole_slice,
            unit="",
            better="lower",
        ),
    ]


def _detail(image: np.ndarray) -> np.ndarray:
    """Return the middle of an image, three times as large."""
    ny, nx = image.shape
    return image[ny // 3 : 2 * ny // 3, nx // 3 : 2 * nx // 3]
