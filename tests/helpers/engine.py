"""A RunEngine that is gone when its test is: by itself its loop runs on, or is left open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bluesky import RunEngine


@contextmanager
def ending_engine() -> Iterator[RunEngine]:
    """Give a RunEngine that leaves Ctrl-C to pytest; end its loop afterwards."""
    engine = RunEngine({}, context_managers=[])
    try:
        yield engine
    finally:
        engine.loop.call_soon_threadsafe(engine.loop.stop)
        engine._th.join()
        engine.loop.close()
