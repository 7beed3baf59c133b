"""How well the denoiser does, whether its slices may be shown, and whether the sample changes."""

from bluesky_jit.learn.quality.accuracy import (
    BEATS_RAW,
    SUSPICIOUS,
    Accuracy,
    accuracy_of_patches,
    accuracy_of_slice,
    beats_raw,
    mean_of,
    middle,
    suspicious,
)
from bluesky_jit.learn.quality.drift import Drift, DriftFigure
from bluesky_jit.learn.quality.jump import JumpDetector
from bluesky_jit.learn.quality.readiness import Readiness
from bluesky_jit.learn.quality.residual import ResidualFigure, residual_figure
from bluesky_jit.learn.quality.scores import data_range, dice, psnr, ssim

__all__ = [
    "BEATS_RAW",
    "SUSPICIOUS",
    "Accuracy",
    "Drift",
    "DriftFigure",
    "JumpDetector",
    "Readiness",
    "ResidualFigure",
    "accuracy_of_patches",
    "accuracy_of_slice",
    "beats_raw",
    "data_range",
    "dice",
    "mean_of",
    "middle",
    "psnr",
    "residual_figure",
    "ssim",
    "suspicious",
]
