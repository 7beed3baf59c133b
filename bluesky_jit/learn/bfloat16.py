"""Whether this processor is quick with bfloat16."""

from __future__ import annotations

import torch


def has_bfloat16() -> bool:
    """Return whether the processor computes with bfloat16 natively; where it only emulates it that is slower."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return supported is not None and bool(supported())
