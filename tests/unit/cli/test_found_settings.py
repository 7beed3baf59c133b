"""A settings file that nobody named gives way to what a scan says of its beam; what somebody asked for does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored_scans import write_nxtomo

from bluesky_jit.cli.found_settings import contradictions
from bluesky_jit.cli.main import main, settings_of
from bluesky_jit.settings import Settings

SAID = {"geometry": {"kind": "parallel", "pixel_mm": 0.01}, "tomo": {"axis": "estimate"}}
CONE = """
[geometry]
kind = "cone"
pixel_mm = 0.96
source_axis_mm = 500
detector_u_mm = 2.0

[tomo]
workers = 3
"""


class Options:
    settings: Path | None = None
    set: tuple[str, ...] = ()


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Stand in a folder where a cone was simulated, with nothing on the command line."""
    monkeypatch.delenv("BLUESKY_JIT_SETTINGS", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jit-data").mkdir()
    (tmp_path / "jit-data" / "settings.toml").write_text(CONE)
    return Options()


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.message for each in caplog.records if each.name == "bluesky_jit.cli.found_settings"]


def test_a_scans_own_beam_comes_before_a_file_that_nobody_named(
    options: Options, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(options, SAID)  # type: ignore[arg-type]
    geometry = settings.geometry
    assert (geometry.kind, geometry.pixel_mm) == ("parallel", 0.01)
    # Nothing of another set-up is mixed in, and what is no set-up counts as ever.
    assert (geometry.source_axis_mm, geometry.detector_u_mm) == (None, 0.0)
    assert (settings.tomo.workers, settings.tomo.axis) == (3, "estimate")
    [text] = warnings_of(caplog)
    assert "kind cone instead of parallel, pixel_mm 0.96 instead of 0.01" in text


def test_a_file_that_agrees_adds_what_the_scan_does_not_say(options: Options, caplog: pytest.LogCaptureFixture) -> None:
    said = {"geometry": {"kind": "cone", "pixel_mm": 0.9600001}}
    geometry = settings_of(options, said).geometry  # type: ignore[arg-type]
    assert (geometry.kind, geometry.source_axis_mm, geometry.detector_u_mm) == ("cone", 500.0, 2.0)
    assert not warnings_of(caplog)


@pytest.mark.parametrize("how", ["--settings", "BLUESKY_JIT_SETTINGS", "environment", "--set"])
def test_what_somebody_asked_for_comes_first_and_is_told(
    options: Options, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "--settings":
        options.settings = Path("jit-data/settings.toml")
    elif how == "--set":
        options.set = ("geometry.pixel_mm=0.96",)
    elif how == "environment":
        monkeypatch.setenv("BLUESKY_JIT_GEOMETRY__PIXEL_MM", "0.96")
    else:
        monkeypatch.setenv("BLUESKY_JIT_SETTINGS", "jit-data/settings.toml")
    settings = settings_of(options, SAID)  # type: ignore[arg-type]
    assert settings.geometry.pixel_mm == 0.96
    told = list(contradictions(SAID, settings))
    assert "it says that geometry.pixel_mm is 0.01, and the settings 0.96: the settings count" in told


def test_settings_that_agree_contradict_nothing() -> None:
    assert list(contradictions(SAID, Settings().changed(SAID))) == []


@pytest.mark.usefixtures("options")
def test_a_volume_is_reconstructed_with_the_scans_own_beam(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = write_nxtomo(tmp_path / "scan.nxs", pixel_mm=0.01)
    main(["reconstruct", str(scan), str(tmp_path / "out.h5"), "--heights", "0", "0.01"])
    assert "voxels of 10 µm" in capsys.readouterr().out
