"""The camera's files as they are found here, and folders that cannot be written to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_disk import largest_file

from bluesky_jit.doctor import files
from bluesky_jit.doctor.files import frame_files, own_folders, size, writable
from bluesky_jit.doctor.finding import Finding
from bluesky_jit.settings import load_settings

FRAME = 1000


def look(directory: Path | str, swmr: str = "On", frame_bytes: int = FRAME) -> dict[str, Finding]:
    found = frame_files(directory=str(directory), swmr=swmr, camera="C:", frame_bytes=frame_bytes)
    return {each.subject: each for each in found}


def write(path: Path, *, swmr: bool = False) -> h5py.File:
    file = h5py.File(path, "w", libver="latest", locking=False)
    file.create_dataset("entry/data/data", data=np.zeros((2, 3, 4), np.uint16), maxshape=(None, 3, 4))
    if swmr:
        file.swmr_mode = True
    return file


def test_a_file_that_grows_is_read(tmp_path: Path) -> None:
    with write(tmp_path / "a.h5", swmr=True):
        found = look(tmp_path)
    assert {each.verdict for each in found.values()} == {"fine"}
    assert "its newest file can be read" in found["frame files"].text
    assert found.keys() == {"frame files", "SWMR", "disk"}


def test_a_file_that_is_written_without_swmr_is_told_from_a_broken_one(tmp_path: Path) -> None:
    # A writer of its own process, which ends without closing the file.
    code = (
        "import h5py, os, sys; file = h5py.File(sys.argv[1], 'w', libver='latest', locking=False)\n"
        "file['data'] = [1, 2]; file.flush(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.h5")], check=True)
    found = look(tmp_path, swmr="Off")
    assert (found["frame files"].verdict, found["SWMR"].verdict) == ("warning", "warning")
    assert "a.h5, is being written without SWMR" in found["frame files"].text
    assert "caput C:HDF1:SWMRMode 1" in found["SWMR"].text


def test_the_newest_file_is_tried(tmp_path: Path) -> None:
    write(tmp_path / "b.h5").close()
    (tmp_path / "a.h5").write_bytes(b"not HDF5 at all")
    os.utime(tmp_path / "b.h5", (1e9, 1e9))
    found = look(tmp_path)["frame files"]
    assert (found.verdict, str(tmp_path / "a.h5") in found.text) == ("problem", True)
    os.utime(tmp_path / "a.h5", (1e8, 1e8))
    assert look(tmp_path)["frame files"].verdict == "fine"


def test_a_folder_that_is_not_here_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "else" / "where", Path("/nosuch"), tmp_path / "file"):
        [found] = look(folder).values()
        assert (found.verdict, "mount it at the same path" in found.text) == ("problem", True)


def test_a_folder_that_the_camera_is_to_make_is_told(tmp_path: Path) -> None:
    found = look(tmp_path / "today")
    assert (found["frame files"].verdict, found["disk"].verdict) == ("warning", "fine")
    assert f"{tmp_path / 'today'} is not there yet" in found["frame files"].text


def test_a_folder_that_nobody_names_is_told() -> None:
    assert look("")["frame files"].verdict == "warning"


def test_an_empty_folder_is_fine(tmp_path: Path) -> None:
    assert "no .h5 file in it yet to try" in look(tmp_path)["frame files"].text


@pytest.mark.parametrize(("frames", "verdict"), [(100, "problem"), (10_000, "warning"), (10_000_000, "fine")])
def test_room_is_counted_in_frames(tmp_path: Path, frames: int, verdict: str) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert look(tmp_path, frame_bytes=max(free // frames, 1))["disk"].verdict == verdict


def test_a_folder_that_can_be_written_to_is_fine_and_stays_as_it_was(tmp_path: Path) -> None:
    found = writable("models", tmp_path, "learn.registry")
    assert (found.verdict, list(tmp_path.iterdir())) == ("fine", [])
    assert "when it is made" in writable("models", tmp_path / "a" / "b", "learn.registry").text
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "models", tmp_path / "file", Path("/proc/models")):
        found = writable("models", folder, "learn.registry")
        assert (found.verdict, "set learn.registry to a folder that can" in found.text) == ("problem", True), folder


def test_a_full_disk_is_a_problem(tmp_path: Path) -> None:
    with largest_file(files.PROBE_BYTES - 1):
        found = writable("models", tmp_path, "learn.registry")
    assert (found.verdict, "File too large" in found.text) == ("problem", True)


def test_a_disk_that_fills_is_a_warning(tmp_path: Path) -> None:
    found = writable("models", tmp_path, "learn.registry", least_bytes=2**62)
    assert (found.verdict, "make room, or set learn.registry" in found.text) == ("warning", True)


def test_the_folders_of_the_settings_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = load_settings(
        environment={},
        learn={"registry": str(tmp_path / "file" / "models"), "checkpoint_folder": str(tmp_path)},
    )
    found = {each.subject: each for each in own_folders(settings)}
    assert [found[name].verdict for name in ("checkpoints", "models", "Tiled spill")] == ["fine", "problem", "fine"]
    assert found["Tiled spill"].text == "none: tiled.uri is empty"
    spilling = load_settings(
        environment={}, tiled={"uri": "http://127.0.0.1:1", "spill_directory": str(tmp_path / "file")}
    )
    assert "set tiled.spill_directory" in own_folders(spilling)[2].text


def test_bytes_are_told_as_people_read_them() -> None:
    assert [size(count) for count in (5, 1500, 2.5e9, 3e12)] == ["5 B", "1.5 kB", "2.5 GB", "3 TB"]
