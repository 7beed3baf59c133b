"""What the demo says of a slice at its end."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import skimage.io

from bluesky_jit.cli.report import SliceReport, draw

TRUTH = np.zeros((40, 50), dtype=np.float32)
TRUTH[10:30, 15:35] = 0.02
NOISE = 0.005 * np.random.default_rng(0).standard_normal(TRUTH.shape).astype(np.float32)


def report(denoised: np.ndarray) -> SliceReport:
    extent_mm = (-25.0, 25.0, -20.0, 20.0)
    return SliceReport(name="XZ", raw=TRUTH + NOISE, denoised=denoised, truth=TRUTH, extent_mm=extent_mm)


def test_figures_compare_both_images_with_the_truth() -> None:
    figures = report(TRUTH + NOISE / 4).figures()
    # A quarter of the noise is 20 log10(4) dB more.
    assert figures["psnr_denoised"] - figures["psnr_raw"] == pytest.approx(12.04, abs=0.01)
    assert figures["ssim_denoised"] > figures["ssim_raw"]


def test_a_slice_that_was_not_denoised_has_no_figures_and_is_drawn_all_the_same(tmp_path: Path) -> None:
    missing = report(np.full_like(TRUTH, np.nan))
    figures = missing.figures()
    assert math.isfinite(figures["psnr_raw"])
    assert math.isnan(figures["psnr_denoised"])
    assert math.isnan(figures["ssim_denoised"])
    picture = skimage.io.imread(draw([missing], tmp_path / "picture.png", "one slice"))
    assert picture[..., :3].std() > 20
