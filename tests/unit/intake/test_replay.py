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
from bluesky_jit.intake.stored_scan import StoredScan
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


# ── what is played when ──────────────────────────────────────────────────────────────────────────────────────────────


class Clock:
    """Tell a time that passes only in sleep, and slowly in what else is done."""

    def __init__(self, busy_s: float = 0.0) -> None:
        self.now_s, self.busy_s = 1000.0, busy_s

    def time(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def emit(self, played_s: list[float]) -> Any:
        def emit(name: str, document: dict[str, Any]) -> None:
            if name == "event" and document["data"]["replay_angle"]:
                played_s.append(self.now_s - 1000.0)
                self.now_s += self.busy_s

        return emit


def data_exchange(path: Path, theta_deg: Any, times_s: Any = None) -> StoredScan:
    """Write a scan of tiny frames, with the time of each where there are any."""
    n = len(theta_deg)
    with h5py.File(path, "w") as file:
        file["exchange/data"] = np.full((n, 2, 3), 100, np.uint16)
        file["exchange/theta"] = np.asarray(theta_deg, dtype=np.float64)
        if times_s is not None:
            file["defaults/HDF5FrameLocation"] = np.array([b"/exchange/data"] * n)
            file["defaults/NDArrayTimeStamp"] = np.asarray(times_s, dtype=np.float64)
    return open_scan(path)


def played(scan: StoredScan, clock: Clock, **how: Any) -> list[float]:
    times_s: list[float] = []
    replay(scan, clock.emit(times_s), tomo=TOMO, clock=clock.time, sleep=clock.sleep, **how)
    return times_s


def test_real_time_is_the_recorded_one_turn_after_turn(tmp_path: Path) -> None:
    taken_s = np.array([50.0, 50.1, 50.3, 50.4])
    scan = data_exchange(tmp_path / "scan.h5", [10, 20, 30, 40], taken_s)
    assert played(scan, Clock(), rate="real", turns=2) == pytest.approx([0, 0.1, 0.3, 0.4, 0.5, 0.6, 0.8, 0.9])


@pytest.mark.parametrize("times_s", [None, [0.0, 0.2, 0.1, 0.3], [0.0, 0.1, np.nan, 0.3]])
def test_a_scan_without_its_times_cannot_be_played_in_real_time(tmp_path: Path, times_s: Any) -> None:
    scan = data_exchange(tmp_path / "scan.h5", [10, 20, 30, 40], times_s)
    emitted: list[str] = []
    with pytest.raises(ValueError, match=r"does not record when .* give a rate"):
        replay(scan, lambda name, _: emitted.append(name), tomo=TOMO, rate="real")
    assert emitted == []


def test_full_speed_waits_for_nothing_but_whoever_takes_the_frames(tmp_path: Path) -> None:
    scan = data_exchange(tmp_path / "scan.h5", [10, 20, 30, 40])
    assert played(scan, Clock(busy_s=0.5)) == [0.0, 0.5, 1.0, 1.5]


def test_what_is_late_is_made_up_for_up_to_a_second(tmp_path: Path) -> None:
    scan = data_exchange(tmp_path / "scan.h5", np.arange(1, 41))
    times_s = played(scan, Clock(busy_s=1.5), rate=10.0)
    assert np.diff(times_s) == pytest.approx(np.full(39, 1.5))
    # A second of ten frames at once at most, and then the rate again.
    clock = Clock(busy_s=3.0)
    slow_first = clock.emit([])

    def emit(name: str, document: dict[str, Any]) -> None:
        slow_first(name, document)
        clock.busy_s = 0.0
        if name == "event":
            seen.append(clock.now_s)

    seen: list[float] = []
    replay(scan, emit, tomo=TOMO, rate=10.0, clock=clock.time, sleep=clock.sleep)
    assert sum(time_s == seen[1] for time_s in seen[1:]) <= 11
    assert seen[-1] - seen[-2] == pytest.approx(0.1)


# ── what is said of the angles ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("degrees", "mode", "per_turn"),
    [
        (np.arange(181) * 180 / 181, "sequential", 362),
        (np.arange(0, 720, 3.0) % 360, "sequential", 120),
        (-np.arange(0, 360, 2.0), "sequential", 180),
        (np.concatenate([np.arange(0, 180, 4.0), np.arange(2, 180, 4.0)]), "interlaced", 180),
        (np.arange(100) * 222.492 % 360, "interlaced", 100),
    ],
    ids=["half turn", "two turns that begin again", "clockwise", "interlaced", "golden"],
)
def test_the_order_of_the_angles_is_seen(degrees: np.ndarray, mode: str, per_turn: int) -> None:
    order = order_of(np.deg2rad(degrees))
    assert order["scan_mode"] == mode
    assert order["n_angles_per_rotation"] == pytest.approx(per_turn, rel=0.01)


def test_noise_of_an_encoder_is_no_other_order() -> None:
    degrees = np.arange(1000) * 0.36 + np.random.default_rng(0).normal(0, 0.1, 1000)
    assert order_of(np.deg2rad(degrees))["scan_mode"] == "sequential"


def test_what_a_run_says_of_its_order_holds(tmp_path: Path) -> None:
    recorder = Recorder()
    scan = data_exchange(tmp_path / "scan.h5", [0, 90, 180, 270])
    replay(scan, JITCallback(recorder), tomo={**TOMO, "scan_mode": "golden", "n_angles_per_rotation": 7})
    [start] = recorder.of(RunStart)
    assert (start.tomo["scan_mode"], start.tomo["n_angles_per_rotation"]) == ("golden", 7)


# ── what is lost, and what is broken off ─────────────────────────────────────────────────────────────────────────────


def test_a_lost_projection_keeps_its_number_in_every_turn(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    data_exchange(path, np.array([0, 10, np.nan, 30]))
    recorder = Recorder()
    replay(open_scan(path), JITCallback(recorder), tomo=TOMO, turns=2)
    ids = np.concatenate([m.unique_ids for m in recorder.of(InlineFrames)])
    assert ids.tolist() == [0, 1, 3, 4, 5, 7]
    assert recorder.of(RunStart)[0].expected_projections == 8


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), "abort"), (RuntimeError("no more"), "fail")])
def test_a_replay_that_is_broken_off_ends_its_run(stored: Path, error: BaseException, status: str) -> None:
    documents: list[tuple[str, Any]] = []

    def emit(name: str, document: Any) -> None:
        documents.append((name, document))
        if len(documents) == 40:
            raise error

    with pytest.raises(type(error)):
        replay(open_scan(stored), emit, tomo=TOMO)
    assert len(documents) == 41
    name, stop = documents[-1]
    assert (name, stop["exit_status"]) == ("stop", status)


@pytest.mark.parametrize(("angles", "words"), [([0.0], "at least two"), ([1.0, 1.0], "do not change")])
def test_scans_that_cannot_be_placed_are_refused(angles: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        order_of(np.array(angles))
