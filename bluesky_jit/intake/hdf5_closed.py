"""Whether a file that is written without SWMR is closed: HDF5 may read zeros from one that is still open."""

from __future__ import annotations

import os
from pathlib import Path

SIGNATURE = b"\x89HDF\r\n\x1a\n"
OPEN_FOR_WRITING = 1
"""Bit of the consistency flags, which versions 2 and 3 of the superblock have."""


def is_closed(path: Path) -> bool:
    """Tell whether a file is as its last close or flush left it.

    The superblock says how long the file is. It is written when a file is closed or flushed, after everything else;
    what is written later makes the file longer than that. Locks say less: many writers take none.
    (HDF5 File Format Specification, version 3.0, section II.A)
    """
    try:
        with path.open("rb") as file:
            head = file.read(96)
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return False
    return head.startswith(SIGNATURE) and _told_size(head) == size


def _told_size(head: bytes) -> int | None:
    """Return the end of the file's address of a superblock; None where it is being written, or not known."""
    version = head[8]
    if version < 2:
        offset_size, base = head[13], 24 + 4 * version
    elif head[11] & OPEN_FOR_WRITING:
        return None
    else:
        offset_size, base = head[9], 12
    # The base address, then that of free space or of the extension, then the end.
    first = base + 2 * offset_size
    return int.from_bytes(head[first : first + offset_size], "little")
