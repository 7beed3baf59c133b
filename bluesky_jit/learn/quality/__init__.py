"""How well the denoiser does, whether its slices may be shown, and whether the sample changes."""

from bluesky_jit.learn.quality.accuracy import BEATS_RAW, SUSPICIOUS, accuracy, middle
from bluesky_jit.learn.quality.jump import JumpDetector
from bluesky_jit.learn.quality.readiness import Readiness
from bluesky_jit.learn.quality.scores import data_range, psnr, ssim

__all__ = [
    "BEATS_RAW",
    "SUSPICIOUS",
    "JumpDetector",
    "Readiness",
    "accuracy",
    "data_range",
    "middle",
    "psnr",
    "ssim",
]
