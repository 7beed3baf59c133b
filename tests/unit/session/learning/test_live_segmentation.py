"""A segmentation is learned in a live run, and published as a kind of its own."""

from __future__ import annotations

import numpy as np
from simulated_run import GEOMETRY, PHANTOM, emit_run, frames

from bluesky_jit import JITCallback, Session
from bluesky_jit.learn.quality.scores import dice
from bluesky_jit.messages import Update
from bluesky_jit.publish.table import image_name
from bluesky_jit.settings import load_settings

SOON_S = 60.0


def test_a_run_tells_the_sample_from_what_is_around_it() -> None:
    streams = frames(turns=2, photons=600)
    settings = load_settings(environment={}, learn={"segment": True, "buffer": 160, "patch": 16})
    with Session(settings, sinks=[]) as session:

        def wait_at_the_end(number: int) -> None:
            if number == len(streams["primary"]) - 1:
                assert session.wait_for(
                    lambda status: session.latest("XY", "segmentation") is not None and status.learning.step > 300,
                    SOON_S,
                )

        uid = emit_run(JITCallback(session), streams, between=wait_at_the_end)
        assert session.wait_for(lambda status: status.run_uid == uid and status.state == "idle", SOON_S)
        found = session.latest("XY", "segmentation")
    assert isinstance(found, Update)
    assert image_name(found) == "Segmentation"
    assert found.preset == "segmentation"
    assert found.weights_step > 0
    assert 0 <= found.image.min() < 0.1 < 0.9 < found.image.max() <= 1
    truth = PHANTOM.attenuation(found.grid, 0.0, oversample=2)[0]
    inside = np.hypot(*(found.grid.points()[0][..., axis] for axis in (0, 1))) < 0.9 * GEOMETRY.radius_mm
    assert dice(found.image[0] > 0.5, truth > truth[inside].max() / 4, mask=inside) > 0.9
