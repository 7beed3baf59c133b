"""What the beam and the detector do to a run: put right where it can be, told once where it cannot."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from simulated_run import ANGLES, GEOMETRY, TOMO, emit_run, frames

from bluesky_jit import JITCallback, Session
from bluesky_jit.intake.replay import replay
from bluesky_jit.intake.sources import open_scan
from bluesky_jit.messages import RunOpened, SinkMessage
from bluesky_jit.settings import load_settings

SOON_S = 30.0


class Opened:
    """Keep what the session says when it opens a run."""

    def __init__(self) -> None:
        self.messages: list[RunOpened] = []

    def publish(self, message: SinkMessage) -> None:
        if isinstance(message, RunOpened):
            self.messages.append(message)

    def close(self) -> None: ...


def finished(session: Session, uid: str) -> bool:
    return session.wait_for(lambda status: status.run_uid == uid and status.state == "idle", SOON_S)


def session_with(sink: Opened | None = None, **tomo: Any) -> Session:
    settings = load_settings(environment={}, tomo=tomo, learn={"enabled": False}, intake={"queue_frames": 512})
    return Session(settings, sinks=[sink] if sink else [])


def stored(path: Path, beam: np.ndarray, *, flats_after: float | None) -> Path:
    """Write a scan under a beam (ANGLES,) as part of the first flats', with flats after it or none."""
    parts = frames(photons=8000)
    dark = parts["darks"].mean(0)

    def under(images: np.ndarray, level: np.ndarray) -> np.ndarray:
        return np.rint((images - dark) * np.reshape(level, (-1, 1, 1)) + dark).astype(np.uint16)

    order = [(parts["darks"], 2), (parts["flats"], 1), (under(parts["primary"], beam), 0)]
    if flats_after is not None:
        order.append((under(parts["flats"], np.array(flats_after)), 1))
    keys = np.concatenate([np.full(len(images), key) for images, key in order])
    angles = np.zeros(len(keys))
    angles[keys == 0] = 360.0 * np.arange(ANGLES) / ANGLES
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = np.concatenate([images for images, _ in order])
        file["entry/data/image_key"] = keys
        file["entry/data/rotation_angle"] = angles
    return path


def outside(path: Path, **tomo: Any) -> float:
    """Return the mean attenuation around the sample, in 1/mm, in the axial slice of a scan played back."""
    with session_with(**tomo) as session:
        ticks = itertools.count(1.79e9)
        uid = replay(open_scan(path), JITCallback(session), tomo=TOMO, clock=lambda: next(ticks))
        assert finished(session, uid)
        update = session.latest("XY", "raw")
    assert update is not None
    radius = np.hypot(*(update.grid.points()[..., axis] for axis in (0, 1)))
    ring = (radius > 0.8 * GEOMETRY.radius_mm) & (radius < 0.97 * GEOMETRY.radius_mm)
    return float(update.image[ring].mean())


def test_flats_after_the_scan_make_up_for_a_beam_that_fades(tmp_path: Path) -> None:
    fading = np.linspace(1, 0.8, ANGLES)
    steady = outside(stored(tmp_path / "steady.nxs", np.ones(ANGLES), flats_after=None))
    first_only = outside(stored(tmp_path / "first.nxs", fading, flats_after=None))
    both = outside(stored(tmp_path / "both.nxs", fading, flats_after=0.8))
    assert abs(both - steady) < 0.05 * abs(first_only - steady)


def test_air_columns_make_up_for_a_beam_that_flickers(tmp_path: Path) -> None:
    flicker = np.random.default_rng(1).uniform(0.7, 1.0, ANGLES)
    steady = outside(stored(tmp_path / "steady.nxs", np.ones(ANGLES), flats_after=None))
    path = stored(tmp_path / "flicker.nxs", flicker, flats_after=None)
    assert abs(outside(path, air_columns=3) - steady) < 0.05 * abs(outside(path) - steady)


def test_zingers_and_the_beam_are_in_the_status_and_what_is_corrected_is_in_the_record() -> None:
    streams = frames(photons=8000)
    streams["primary"][:, 24, 32] += 30_000
    sink = Opened()
    with session_with(sink, zinger_threshold=0.1, air_columns=3) as session:
        uid = emit_run(JITCallback(session), streams, tomo={**TOMO, "energy_kev": 25})
        assert finished(session, uid)
        status = session.status
    assert status.zingers_per_frame == pytest.approx(1.0, abs=0.05)
    assert status.beam_level == pytest.approx(1.0, abs=0.01)
    [opened] = sink.messages
    assert opened.corrections == {"zinger_threshold": 0.1, "air_columns": 3, "energy_kev": 25.0}


@pytest.mark.parametrize(
    ("kind", "spoil", "words"),
    [
        ("int32", lambda n: -n - 1, "-1 counts at row 2, column 3 (negative)"),
        ("float32", lambda n: np.nan, "nan counts at row 2, column 3 (not finite)"),
        ("int32", lambda n: 70_000 + n, "70000 counts at row 2, column 3 (too large)"),
    ],
)
def test_counts_that_cannot_be_used_are_told_once_by_value(
    kind: str, spoil: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    streams = frames(photons=5000)
    primary = streams["primary"].astype(kind)
    for number in range(0, 10):
        primary[number, 2, 3] = spoil(number)
    with session_with() as session, caplog.at_level(logging.WARNING):
        uid = emit_run(JITCallback(session), {**streams, "primary": primary})
        assert finished(session, uid)
        lost = session.status.frames_lost
    told = [record.message for record in caplog.records if "let the detector" in record.message]
    assert len(told) == 1
    assert words in told[0]
    assert lost == 10
