"""Replay: a stored scan comes as the documents of a run, and a session makes slices of it."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from recorder import Recorder
from scipy.ndimage import gaussian_filter
from simulated_run import ANGLES, GEOMETRY, PHANTOM, frames

from bluesky_jit import JITCallback, Session, load_settings
from bluesky_jit.intake.replay import order_of, replay
from bluesky_jit.intake.sources import open_scan
from bluesky_jit.messages import InlineFrames, RunStart, RunStop

REAL = Path(__file__).parents[4] / "shared" / "data" / "tooth.h5"
TOMO = {"geometry": "parallel", "pixel_mm": 1.0}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a simulated scan as an NXtomo file, flats and darks at both ends."""
    path = tmp_path_factory.mktemp("scan") / "scan.nxs"
    parts = frames(turns=1, photons=3000)
    order = [("darks", 2), ("flats", 1), ("primary", 0), ("flats", 1)]
    images = np.concatenate([parts[name] for name, _ in order])
    keys = np.concatenate([np.full(len(parts[name]), key) for name, key in order])
    angles = np.zeros(len(keys))
    angles[keys == 0] = 360.0 * np.arange(ANGLES) / ANGLES
    with h5py.File(path, "w") as file:
        file["entry/instrument/detector/data"] = images
        file["entry/instrument/detector/image_key"] = keys
        file["entry/sample/rotation_angle"] = angles
        file["entry/sample/rotation_angle"].attrs["units"] = "degree"
    return path


def test_documents_carry_every_frame_with_its_angle(stored: Path) -> None:
    recorder = Recorder()
    scan = open_scan(stored)
    uid = replay(scan, JITCallback(recorder), tomo=TOMO)
    [start], [stop] = recorder.of(RunStart), recorder.of(RunStop)
    assert start.run_uid == stop.run_uid == uid
    assert start.tomo["n_angles_per_rotation"] == ANGLES
    projections = [m for m in recorder.of(InlineFrames) if m.kind == "projection"]
    assert np.concatenate([m.angles_rad for m in projections]) == pytest.approx(scan.angles_rad)
    assert [m.kind for m in recorder.of(InlineFrames)].count("flat") == 40


def test_turns_play_the_projections_again(stored: Path) -> None:
    recorder = Recorder()
    replay(open_scan(stored), JITCallback(recorder), tomo=TOMO, turns=3)
    kinds = [m.kind for m in recorder.of(InlineFrames)]
    assert kinds.count("projection") == 3 * ANGLES
    assert kinds.count("dark") == 5


def test_the_rate_is_kept_by_the_clock(stored: Path) -> None:
    now = [1000.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    replay(open_scan(stored), lambda *_: None, tomo=TOMO, rate=10.0, clock=lambda: now[0], sleep=sleep)
    assert now[0] - 1000.0 == pytest.approx((ANGLES - 1) / 10.0)


def test_a_session_makes_slices_of_a_stored_scan(stored: Path) -> None:
    settings = load_settings(environment={}, learn={"enabled": False}, slices={"updates_per_s": 50})
    with Session(settings, sinks=[]) as session:
        uid = replay(open_scan(stored), JITCallback(session), tomo=TOMO)
        assert session.wait_for(lambda status: status.run_uid == uid and status.state == "idle", 30.0)
        update = session.latest("XY", "raw")
    assert update is not None
    truth = PHANTOM.attenuation(update.grid, 0.0, oversample=2)
    inside = np.hypot(*(update.grid.points()[..., axis] for axis in (0, 1))) < 0.8 * GEOMETRY.radius_mm
    assert np.mean(update.image[inside]) == pytest.approx(np.mean(truth[inside]), rel=0.05)


@pytest.mark.skipif(not REAL.exists(), reason="the folder of real scans is not here")
def test_the_tooth_is_reconstructed() -> None:
    """Its axis is at column 296.0 of 640, so lab x of the axis is (296.0 − 319.5) pixels."""
    settings = load_settings(environment={}, learn={"enabled": False}, slices={"updates_per_s": 50})

    def slice_with(axis_px: float) -> np.ndarray:
        tomo: dict[str, Any] = {"geometry": "parallel", "pixel_mm": 0.01, "axis_offset_mm": (axis_px - 319.5) * 0.01}
        with Session(settings, sinks=[]) as session:
            uid = replay(open_scan(REAL), JITCallback(session), tomo=tomo)
            assert session.wait_for(lambda status: status.run_uid == uid and status.state == "idle", 60.0)
            update = session.latest("XY", "raw")
        assert update is not None
        return update.image[0]

    def negative(image: np.ndarray) -> float:
        return float(-np.minimum(gaussian_filter(image, 1.5), 0).sum())

    # Attenuation is not negative; streaks of a wrong axis are.
    assert negative(slice_with(296.0)) < 0.6 * negative(slice_with(290.0))


@pytest.mark.parametrize(("angles", "words"), [([0.0], "at least two"), ([1.0, 1.0], "do not change")])
def test_scans_that_cannot_be_placed_are_refused(angles: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        order_of(np.array(angles))
