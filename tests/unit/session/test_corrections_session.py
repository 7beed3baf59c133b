"""A correction that is set reaches the slices that are published."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulated_run import ANGLES, GEOMETRY, TOMO, emit_run, frames

from bluesky_jit import JITCallback, Session
from bluesky_jit.settings import load_settings

SOON_S = 30.0


@pytest.fixture(scope="module")
def streams() -> dict[str, np.ndarray]:
    return frames(photons=5000)


def shown(streams: dict[str, np.ndarray], tomo: dict[str, Any] = TOMO, **settings: Any) -> np.ndarray:
    """Return the axial slice at a run's end, with these settings of `tomo`."""
    chosen = load_settings(environment={}, tomo=settings, learn={"enabled": False}, intake={"queue_frames": 512})
    with Session(chosen) as session:
        uid = emit_run(JITCallback(session), streams, tomo=tomo, num_points=ANGLES)
        assert session.wait_for(lambda status: status.run_uid == uid and status.state == "idle", SOON_S)
        update = session.latest("XY", "raw")
    assert update is not None
    return update.image[0]


def striped(streams: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the run with columns whose gain has changed since the flats."""
    gain = np.ones(GEOMETRY.n_u)
    gain[[18, 27, 41, 50]] = 0.9, 1.1, 0.9, 1.1
    return {**streams, "primary": np.rint(streams["primary"] * gain).astype(np.uint16)}


def rms(image: np.ndarray) -> float:
    return float(np.sqrt(np.mean(image**2)))


def test_rings_go_when_a_ring_width_is_set(streams: dict[str, np.ndarray]) -> None:
    truth, faulty = shown(streams), striped(streams)
    before, after = rms(shown(faulty) - truth), rms(shown(faulty, ring_width=1) - truth)
    assert after < 0.4 * before


def test_hardening_scales_what_is_shown(streams: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(shown(streams, hardening=[1.5]), 1.5 * shown(streams), atol=1e-4)


def test_phase_retrieval_smooths_what_is_shown_and_takes_the_energy_from_the_run(
    streams: dict[str, np.ndarray],
) -> None:
    sharp = shown(streams)
    smooth = shown(streams, {**TOMO, "energy_kev": 20.0}, delta_beta=1000.0, propagation_mm=5e5)
    assert np.std(np.diff(smooth)) < 0.5 * np.std(np.diff(sharp))
    assert smooth.mean() == pytest.approx(sharp.mean(), rel=0.05)
