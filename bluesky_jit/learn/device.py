"""Where training runs: on a GPU that trains as the CPU does, else on the CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch

logger = logging.getLogger(__name__)

STEPS = 4
AGREEMENT = 0.01
"""Relative difference of losses that rounding may make in so few steps; the wrong tensors make more."""


@cache
def training_device(losses: Callable[[str, int], list[float]]) -> str:
    """Return "cuda" where PyTorch has a GPU that trains as the CPU does, else "cpu"; the log says why not.

    losses: those of the first steps on a device, given its name and their number.
    """
    if not torch.cuda.is_available():
        return "cpu"
    try:
        found, wanted = losses("cuda", STEPS), losses("cpu", STEPS)
    # PyTorch has AssertionError for a build without CUDA, and RuntimeError for all that goes wrong on the device.
    except (RuntimeError, AssertionError) as error:
        logger.warning("training stays on the CPU, for the GPU does not run it: %s", str(error).splitlines()[0])
        return "cpu"
    if all(abs(one - other) <= AGREEMENT * other for one, other in zip(found, wanted, strict=True)):
        logger.info("training runs on the GPU, as one CUDA graph a step")
        return "cuda"
    logger.warning("training stays on the CPU, for the GPU's losses are %s instead of %s", found, wanted)
    return "cpu"
