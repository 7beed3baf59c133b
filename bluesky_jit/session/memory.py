"""Give the memory of runs that are over back to the system: a service that takes run after run must not grow."""

from __future__ import annotations

import ctypes
import gc
import sys


def give_back_memory() -> None:
    """Free what no run needs any more, and hand it to the system where its C library would keep it (glibc).

    The parts of a run know each other, so that it is freed only when Python looks for such circles: by itself, after
    many runs. That takes a fraction of a second, in which no other thread gets on: call it between runs.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
