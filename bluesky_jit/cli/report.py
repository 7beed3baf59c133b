"""What the demo shows at its end: how much better the denoised slices are, in figures and in a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bluesky_jit.learn.quality.scores import psnr, ssim

FIGURE_DPI = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceReport:
    """Compare one slice with the truth. Images: float32 (ny, nx) in 1/mm; extent_mm: left, right, bottom, top.

    denoised: all NaN where the denoiser was not ready.
    """

    name: str
    raw: np.ndarray
    denoised: np.ndarray
    truth: np.ndarray
    extent_mm: tuple[float, float, float, float]

    @property
    def inside(self) -> np.ndarray:
        """Return where every projection sees the sample: outside it, nothing is reconstructed."""
        ny, nx = self.truth.shape
        if self.name != "XY":
            return np.ones((ny, nx), dtype=bool)
        y, x = np.ogrid[:ny, :nx]
        return np.hypot(y - (ny - 1) / 2, x - (nx - 1) / 2) < min(ny, nx) / 2

    def figures(self) -> dict[str, float]:
        """Return PSNR (dB) and SSIM of raw and denoised, relative to the truth's range; NaN where there is no image."""
        figures = {}
        for kind, image in (("raw", self.raw), ("denoised", self.denoised)):
            made = bool(np.isfinite(image).all())
            figures[f"psnr_{kind}"] = psnr(image, self.truth, mask=self.inside) if made else math.nan
            figures[f"ssim_{kind}"] = ssim(image, self.truth, mask=self.inside) if made else math.nan
        return figures


def draw(reports: Sequence[SliceReport], path: Path, title: str) -> Path:
    """Write a picture of raw, denoised and truth side by side, in one contrast."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    top = max(float(np.percentile(report.truth, 99.5)) for report in reports)
    figure, axes = plt.subplots(
        len(reports), 3, figsize=(11, 3.6 * len(reports)), layout="constrained", squeeze=False, dpi=FIGURE_DPI
    )
    for row, report in zip(axes, reports, strict=True):
        figures = report.figures()
        captions = (
            *(f"{report.name} {kind}\n{_scores(figures, kind)}" for kind in ("raw", "denoised")),
            f"{report.name} truth",
        )
        shown = None
        for axis, image, caption in zip(row, (report.raw, report.denoised, report.truth), captions, strict=True):
            shown = axis.imshow(image, cmap="gray", vmin=0, vmax=top, origin="lower", extent=report.extent_mm)
            axis.set_title(caption, fontsize=10)
            axis.set_xlabel(f"{report.name[0].lower()} / mm", fontsize=8)
            axis.set_ylabel(f"{report.name[1].lower()} / mm", fontsize=8)
            axis.tick_params(labelsize=7)
        if shown is not None:
            figure.colorbar(shown, ax=row, label="attenuation / mm⁻¹", shrink=0.85)
    figure.suptitle(title)
    figure.savefig(path)
    plt.close(figure)
    return path


def _scores(figures: Mapping[str, float], kind: str) -> str:
    decibels, similarity = figures[f"psnr_{kind}"], figures[f"ssim_{kind}"]
    return f"PSNR {decibels:.1f} dB   SSIM {similarity:.2f}" if math.isfinite(decibels) else "not ready"
