"""A stored scan is played into a session of its own: a picture, figures, or one clear sentence."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import h5py
import matplotlib.image
import numpy as np
import pytest
import tifffile
from rich.console import Console
from simulated_run import ANGLES, GEOMETRY
from stored_scans import spoil, write_nxtomo

from bluesky_jit.cli.replay import NAMED, RING_WIDTH, Bars, Counting, LeftOut, Play, defaults_of, replay_source
from bluesky_jit.intake.replay import replay
from bluesky_jit.intake.sources import open_scan
from bluesky_jit.settings import Settings, load_settings

PLAIN: dict[str, dict[str, Any]] = {"learn": {"enabled": False}, "slices": {"updates_per_s": 50}}


def load_with(**changes: dict[str, Any]) -> Any:
    """Return what loads settings with these changes, nobody's files or environment included."""

    def load(defaults: Any = None) -> Settings:
        return load_settings(environment={}, defaults=defaults, **{**PLAIN, **changes})

    return load


def played(source: Path, folder: Path, play: Play | None = None, **changes: dict[str, Any]) -> dict[str, Any]:
    replay_source(str(source), load_with(**changes), play or Play(), output=folder)
    return json.loads((folder / "figures.json").read_text())


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nxtomo(tmp_path_factory.mktemp("scan") / "scan.nxs", pixel_mm=GEOMETRY.pixel_mm)


def test_the_picture_and_the_figures_say_what_came_out(scan: Path, tmp_path: Path) -> None:
    figures = played(scan, tmp_path)
    frames = figures["frames"]
    assert (frames["projections"], frames["flats"], frames["darks"], frames["lost"]) == (ANGLES, 40, 5, 0)
    assert figures["geometry"]["pixel_mm"] == GEOMETRY.pixel_mm
    assert (figures["unit"], figures["layout"], figures["angles_from"]) == ("mm", "NXtomo", "frame attribute")
    # It lies in the middle of the 64 columns, and is looked for although nobody asked.
    assert figures["axis"]["column"] == pytest.approx(31.5, abs=0.5)
    assert figures["axis"]["confidence"] > 0.8
    assert (figures["denoised"], figures["learning"]["reason"]) == (False, "learning is switched off")
    picture = matplotlib.image.imread(tmp_path / figures["picture"])
    assert picture.std() > 0.1


def test_at_full_speed_no_frame_is_lost_however_few_may_wait(scan: Path, tmp_path: Path) -> None:
    figures = played(scan, tmp_path, intake={"queue_frames": 2})
    assert (figures["frames"]["projections"], figures["frames"]["lost"]) == (ANGLES, 0)


def test_a_spoilt_row_costs_one_projection_and_is_named(tmp_path: Path) -> None:
    path = write_nxtomo(tmp_path / "scan.nxs")
    # 5 darks and 20 flats come before.
    spoil(path, "entry/instrument/detector/data", 25 + 30)
    frames = played(path, tmp_path / "out")["frames"]
    assert (frames["projections"], frames["lost"]) == (ANGLES - 1, 1)
    [sentence] = frames["left_out"]
    assert sentence.startswith(f"row 55 of entry/instrument/detector/data in {path} cannot be read")


def test_without_a_pixels_size_lengths_are_in_pixels(tmp_path: Path) -> None:
    figures = played(write_nxtomo(tmp_path / "scan.nxs"), tmp_path / "out")
    assert (figures["unit"], figures["geometry"]["pixel_mm"]) == ("pixel", 1.0)


def test_phase_retrieval_without_a_pixels_size_is_refused(tmp_path: Path) -> None:
    path = write_nxtomo(tmp_path / "scan.nxs")
    with pytest.raises(ValueError, match=r"give geometry\.pixel_mm"):
        played(path, tmp_path / "out", tomo={"delta_beta": 100.0})
    assert not (tmp_path / "out").exists()


def test_settings_come_before_what_the_file_says(scan: Path, tmp_path: Path) -> None:
    changes = {"geometry": {"pixel_mm": 0.5}, "tomo": {"axis": "given"}}
    figures = played(scan, tmp_path, **changes)
    assert figures["geometry"]["pixel_mm"] == 0.5
    assert figures["axis"]["column"] == 31.5


def test_a_slice_that_is_not_denoised_says_why(scan: Path, tmp_path: Path) -> None:
    # Two frames at most are learned from: nothing is ready so soon.
    figures = played(scan, tmp_path, Play(learn_s=0.0), learn={"enabled": True})
    assert not figures["denoised"]
    assert figures["learning"]["reason"]
    assert (tmp_path / "slice.png").exists()


def data_exchange(path: Path, frames: np.ndarray) -> Path:
    """Write frames over half a turn as they are, with darks and flats of the same type."""
    n, n_v, n_u = frames.shape
    with h5py.File(path, "w") as file:
        file["exchange/data"] = frames
        file["exchange/data_dark"] = np.full((2, n_v, n_u), 100, np.uint16)
        file["exchange/data_white"] = np.full((2, n_v, n_u), 1100, np.uint16)
        file["exchange/theta"] = np.arange(n) * 180 / n
    return path


def one_row(n: int = 60, n_u: int = 48) -> np.ndarray:
    """Return frames of one row that show a disc of 6 pixels' radius, off the axis, as attenuating as 0.05 a pixel."""
    u, angles = np.arange(n_u) - (n_u - 1) / 2, np.arange(n) * np.pi / n
    across = u[None] - 8 * np.cos(angles)[:, None]
    lengths = 2 * np.sqrt(np.maximum(0, 36 - across**2))
    return np.rint(100 + 1000 * np.exp(-0.05 * lengths))[:, None].astype(np.uint16)


def test_a_detector_of_one_row_gives_one_slice(tmp_path: Path) -> None:
    figures = played(data_exchange(tmp_path / "row.h5", one_row()), tmp_path / "out")
    frames = figures["frames"]
    assert (frames["projections"], frames["flats"], frames["darks"], frames["lost"]) == (60, 2, 2, 0)
    assert figures["axis"]["column"] == pytest.approx(23.5, abs=0.5)
    assert (tmp_path / "out" / "slice.png").exists()


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        (np.full((20, 6, 8), np.nan, np.float32), "not finite"),
        (np.full((20, 6, 8), -3, np.int16), "negative"),
        (np.full((20, 6, 8), 3j, np.complex64), "of type complex64"),
    ],
)
def test_a_scan_that_gives_no_slice_says_why_and_keeps_its_figures(
    tmp_path: Path, frames: np.ndarray, why: str
) -> None:
    path = data_exchange(tmp_path / "scan.h5", frames)
    with pytest.raises(RuntimeError, match="no slice came out: 20 frames could not be used: .*" + why):
        played(path, tmp_path / "out")
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert ("picture" in figures, figures["frames"]["projections"]) == (False, 0)
    assert len(figures["frames"]["left_out"]) == 20


def test_frames_that_are_left_out_count_in_the_bar(tmp_path: Path) -> None:
    frames = one_row().astype(np.float32)
    frames[3:5] = np.nan
    scan = open_scan(data_exchange(tmp_path / "scan.h5", frames))
    seen: list[tuple[str, float, float]] = []

    class Seen(Bars):
        def advance(self, doing: str, done: float, total: float, note: str = "") -> None:
            seen.append((doing, done, total))

    counting = Counting(lambda name, document: None, scan, 1, Seen(Console()), lambda sentence: None)
    replay(scan, counting, tomo={}, told=counting.leave_out)
    assert seen[-1] == ("scan.h5", 64, 64)


def test_rings_are_removed_unless_somebody_says_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A pixel that sees a tenth too little draws a ring, which both halves of a pair would have."""
    # As the command line has it.
    caplog.set_level(logging.INFO, logger="bluesky_jit")
    frames = one_row()
    frames[:, :, 36] = np.rint(frames[:, :, 36] * 0.9)
    path = data_exchange(tmp_path / "scan.h5", frames)
    assert defaults_of(open_scan(path), Settings())["tomo"]["ring_width"] == RING_WIDTH
    without = played(path, tmp_path / "without")
    told = " ".join(capsys.readouterr().err.split())
    assert "rings are removed, up to 3 pixels wide; tomo.ring_width=0 keeps them" in told
    kept = played(path, tmp_path / "kept", tomo={"ring_width": 0})
    assert "rings are removed" not in capsys.readouterr().err
    pictures = [
        (tmp_path / name / each["picture"]).read_bytes() for name, each in (("without", without), ("kept", kept))
    ]
    assert pictures[0] != pictures[1]


def test_too_few_projections_or_columns_to_tell_rings_keep_them(tmp_path: Path) -> None:
    few, narrow = one_row(8), one_row(60, 4)
    for number, frames in enumerate((few, narrow)):
        scan = open_scan(data_exchange(tmp_path / f"{number}.h5", frames))
        assert "ring_width" not in defaults_of(scan, Settings())["tomo"]


def test_an_interrupt_leaves_no_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = data_exchange(tmp_path / "scan.h5", one_row())

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bluesky_jit.cli.replay_session.learn_on", interrupted)
    with pytest.raises(KeyboardInterrupt):
        played(path, tmp_path / "new" / "out", learn={"enabled": True})
    assert not (tmp_path / "new").exists()


def test_a_file_is_no_folder_for_results(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("mine")
    with pytest.raises(FileExistsError, match="text is a file: give a folder"):
        played(scan, tmp_path / "text")


def test_earlier_results_are_not_written_over(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "slice.png").touch()
    with pytest.raises(FileExistsError, match="give another --output"):
        played(scan, tmp_path)


@pytest.mark.parametrize(
    ("play", "words"),
    [
        (Play(turns=0), "--turns is 0"),
        (Play(learn_s=-1), "--learn is -1"),
        (Play(learn_s=math.nan), "--learn is nan"),
        (Play(learn_s=math.inf), "--learn is inf"),
        (Play(to="tape"), "--to is tape: give session, serve, tiled"),
        (Play(rate="real"), "does not record when its projections were taken"),
        (Play(to="tiled"), r"--to tiled needs tiled\.uri"),
    ],
)
def test_what_cannot_be_played_is_one_sentence(scan: Path, tmp_path: Path, play: Play, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        played(scan, tmp_path / "out", play)
    assert not (tmp_path / "out").exists()


def test_a_flexray_folder_gives_the_slice_of_its_cone(tmp_path: Path) -> None:
    """A ball off the axis, seen as the scanner sees it: turned clockwise, pictures with their highest row first."""
    from analytic_balls import BEAM, DARK, Ball, counts_of, line_integrals

    from bluesky_jit.tomo.geometry import ConeGeometry

    cone = ConeGeometry(n_u=48, n_v=32, pixel_mm=0.5, source_axis_mm=60, source_detector_mm=120)
    ball = Ball(centre=(1.6, -1.0, 0.9), radius=1.4, mu=0.09, soft=True)
    n = 121
    degrees = np.linspace(0, 360, n)
    folder = tmp_path / "scan"
    folder.mkdir()
    counts = counts_of(line_integrals(cone, [ball], np.deg2rad(-degrees)))[:, ::-1]
    for number, picture in enumerate(counts):
        tifffile.imwrite(folder / f"scan_{number:06d}.tif", picture)
    tifffile.imwrite(folder / "di000000.tif", np.full((32, 48), DARK, np.uint16))
    tifffile.imwrite(folder / "io000000.tif", np.full((32, 48), DARK + BEAM, np.uint16))
    settings = {"SOD": 60, "SDD": 120, "Voxel size": 250, "# projections": n, "Start angle": 0, "Last angle": 360}
    (folder / "scan settings.txt").write_text("".join(f"{name} : {value}\n" for name, value in settings.items()))

    from bluesky_jit import JITCallback, Session
    from bluesky_jit.cli.replay import tomo_of_scan

    scan = open_scan(folder)
    settings = load_with(tomo={"axis": "given"})(defaults_of(scan, load_settings(environment={})))
    with Session(settings, sinks=[]) as session:
        session.positions_mm["XY"] = 0.9
        uid = replay(scan, JITCallback(session), tomo=tomo_of_scan(scan, settings))
        assert session.wait_for(lambda status: status.run_uid == uid and status.state == "idle", 60.0)
        update = session.latest("XY", "raw")
    assert update is not None
    truth = ball.attenuation(update.grid.points())[0]
    assert np.corrcoef(update.image[0].ravel(), truth.ravel())[0, 1] > 0.95
    # Turned the other way, or with its rows upside down, it would be elsewhere.
    inside = truth > 0.5 * truth.max()
    assert update.image[0][inside].mean() == pytest.approx(truth[inside].mean(), rel=0.1)


def test_only_the_first_frames_that_are_left_out_are_told_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    left_out = LeftOut()
    for number in range(50):
        left_out(f"row {number} is spoilt")
    told = [record for record in caplog.records if record.name == "bluesky_jit.cli.replay"]
    assert (len(left_out.sentences), len(told)) == (50, NAMED + 1)
