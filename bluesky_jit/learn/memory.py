"""What the C library does with memory that was given back."""

from __future__ import annotations

import torch

KEPT = 31 * 2**20
"""Bytes: just below the largest block that glibc's malloc can learn to keep (DEFAULT_MMAP_THRESHOLD_MAX, 32 MiB)."""


def keep_freed_memory() -> None:
    """Let malloc keep freed blocks of up to 31 MiB, instead of giving them back and asking for them again.

    glibc raises what it keeps to the largest block that was freed (mallopt(3), M_MMAP_THRESHOLD), so one is made here
    and freed; its pages are never touched. A network asks for megabytes in each layer: with fresh pages each time, the
    default network's slices of 1024×1024 took half as long again.
    """
    torch.empty(KEPT, dtype=torch.uint8)
