"""A session on a GPU: the same slices as on the CPU, and clear words where there is none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from cuda_on_host import HostDevice
from simulated_run import emit_run, frames

from bluesky_jit import JITCallback, Session
from bluesky_jit.messages import SessionStatus, Update
from bluesky_jit.settings import load_settings
from bluesky_jit.tomo.kernels import cuda

SOON_S = 30.0
SLICES = ("XY", "XZ", "YZ")


@pytest.fixture(scope="module")
def streams() -> dict[str, np.ndarray]:
    return frames(turns=2)


def finished(uid: str) -> Callable[[SessionStatus], bool]:
    return lambda status: status.run_uid == uid and status.state == "idle"


def run(kernel: str, streams: dict[str, np.ndarray]) -> tuple[dict[str, Update | None], str]:
    """Return a run's last slices and its worst message."""
    settings = load_settings(
        environment={},
        tomo={"kernel": kernel},
        learn={"enabled": False},
        slices={"updates_per_s": 50.0},
        intake={"queue_frames": 2048},
    )
    with Session(settings, sinks=[]) as session:
        uid = emit_run(JITCallback(session), streams)
        assert session.wait_for(finished(uid), SOON_S)
        return {name: session.latest(name, "raw") for name in SLICES}, session.status.message


def test_a_session_makes_the_same_slices_on_a_gpu(
    streams: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "why_not", lambda: "")
    monkeypatch.setattr(cuda, "CupyDevice", HostDevice)
    ours, message = run("auto", streams)
    theirs, _ = run("numba", streams)
    assert message == ""
    for name in SLICES:
        gpu, cpu = ours[name], theirs[name]
        assert gpu is not None
        assert cpu is not None
        np.testing.assert_allclose(gpu.image, cpu.image, rtol=0, atol=3e-4 * np.abs(cpu.image).max())


def test_a_gpu_that_is_asked_for_and_missing_is_named_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuda, "DRIVER", "libno-such-driver.so.1")
    session = Session(load_settings(environment={}, tomo={"kernel": "cuda"}), sinks=[])
    with pytest.raises(ValueError, match="kernel is 'cuda' and cannot run here: no NVIDIA driver on this machine"):
        session.start()
    assert session.workers is None
