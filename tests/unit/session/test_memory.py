"""What a run took is given back when no run needs it any more."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
from simulated_run import emit_run, frames

from bluesky_jit import JITCallback, Session
from bluesky_jit.settings import load_settings

SOON_S = 60.0
RUNS = 4


@pytest.fixture
def no_collections() -> Iterator[None]:
    """Python looks for circles by itself every so often, which would hide that nobody else does."""
    gc.disable()
    yield
    gc.enable()


def test_a_run_is_freed_when_later_ones_are_over(no_collections: None) -> None:
    streams = frames(turns=2, photons=600)
    with Session(load_settings(environment={}, intake={"queue_frames": 4096}), sinks=[]) as session:
        callback = JITCallback(session)

        def play() -> None:
            uid = emit_run(callback, streams)
            assert session.wait_for(lambda status: (status.run_uid, status.state) == (uid, "idle"), SOON_S)

        play()
        assert session.run is not None
        first = weakref.ref(session.run)
        # A stage may still hold it while the next run ends; then it is freed with the one after.
        for _ in range(RUNS):
            play()
            if first() is None:
                break
        assert first() is None
