"""`bluesky-jit demo` and `bluesky-jit sim`, as a user runs them: in a folder of their own, ended by Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import skimage.io
from servers import wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

TURNS = 6
DONE_S = 150.0
END_S = 30.0


class Command:
    """Run `bluesky-jit …` in an empty folder, with an empty home folder and no settings of its user's."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.cwd, self.home = folder / "cwd", folder / "home"
        for each in (self.cwd, self.home):
            each.mkdir(parents=True)
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bluesky_jit.cli", *arguments],
            cwd=self.cwd,
            env=user_environment(self.home),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def wait_until_shown(self, words: str, timeout_s: float) -> None:
        def shown() -> bool:
            if self._process.poll() is not None:
                raise RuntimeError(f"it ended with {self._process.returncode}:\n{self.output}")
            return words in self.output

        wait_for(shown, timeout_s=timeout_s, what=f"{words!r}")

    def interrupt(self, number: int = signal.SIGINT, *, times: int = 1) -> int:
        """Press Ctrl-C; return the exit status."""
        for _ in range(times):
            self._process.send_signal(number)
            # Signals of one kind are merged until the process takes the first.
            time.sleep(0.2 if times > 1 else 0)
        return self.wait(END_S)

    def wait(self, timeout_s: float) -> int:
        try:
            return self._process.wait(timeout_s)
        finally:
            if self._process.poll() is None:
                self._process.kill()
            self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            self.lines.extend(output)


def user_environment(home: Path) -> dict[str, str]:
    """Return an environment without EPICS, settings or caches of this machine's user; a wide terminal."""
    ours = ("EPICS_", "BLUESKY_JIT_", "TILED_", "XDG_", "MPL", "NUMBA_", "OPHYD_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    # A beamline's own network, on which the demo must find nothing and serve nothing.
    network = {"EPICS_CA_ADDR_LIST": "127.0.0.1:9", "EPICS_PVA_ADDR_LIST": "127.0.0.1:9"}
    return kept | network | {"HOME": str(home), "COLUMNS": "100"}


def written(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def running(folder: Path) -> list[str]:
    """Return the command lines of processes that have to do with a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(folder) in line:
                found.append(line)
    return found


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a user saw of a demo with --keep, from its start to the Ctrl-C that ended it."""

    output: str
    data: Path
    status: int
    while_up: Sequence[str]
    pasted: subprocess.CompletedProcess[str]
    left_running: Sequence[str]
    files: Sequence[Path]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    folder = tmp_path_factory.mktemp("demo")
    demo = Command(folder, "demo", "--turns", str(TURNS), "--keep")
    try:
        demo.wait_until_shown("everything stays up", DONE_S)
        lines = demo.output.partition("read it back")[2].partition("\n")[2].partition("everything stays up")[0]
        uid = re.search(r"results\(\"(.*?)\"", lines)
        assert uid is not None, lines
        more = (
            f'run = raw_catalog(client)["{uid[1]}"]\nprint("RAW", run.metadata["stop"]["exit_status"], sorted(run))\n'
        )
        more += f'found = results("{uid[1]}", client)\nprint("OURS", sorted(found), found["XY"]["denoised"].dims)\n'
        while_up = running(folder)
        pasted = subprocess.run(
            ["bash", "-e"],
            input=lines + more,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=user_environment(folder / "home"),
        )
    finally:
        status = demo.interrupt()
    [data] = (folder / "cwd" / "jit-data").iterdir()
    return Shown(
        output=demo.output,
        data=data,
        status=status,
        while_up=while_up,
        pasted=pasted,
        left_running=running(folder),
        files=written(folder),
    )


def test_the_demo_ends_well_and_leaves_nothing_running(shown: Shown) -> None:
    assert shown.status == 0, shown.output
    assert "Traceback" not in shown.output
    assert len(shown.while_up) == 3
    assert not shown.left_running


def test_the_demo_writes_nothing_outside_its_own_data_folder(shown: Shown) -> None:
    assert shown.files
    assert [path for path in shown.files if not path.is_relative_to(shown.data)] == []


def test_only_its_user_can_read_the_key(shown: Shown) -> None:
    settings = shown.data / "settings.toml"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    key = re.search(r'api_key = "(\w+)"', settings.read_text())
    assert key is not None
    assert all(key[1] not in line for line in shown.while_up)
    assert key[1] not in shown.output
    logs = [path for path in shown.files if path.suffix in (".log", ".yml")]
    assert logs
    assert all(key[1] not in path.read_text() for path in logs)


def test_denoised_slices_are_better_than_raw_ones_in_the_table(shown: Shown) -> None:
    numbers = r"│ +([\d.]+)(?: dB)? +"
    rows = re.findall(rf"│ (XY|XZ|YZ) +{numbers * 4}│", shown.output)
    assert [row[0] for row in rows] == ["XY", "XZ", "YZ"]
    for _, psnr_raw, psnr_denoised, ssim_raw, ssim_denoised in rows:
        assert float(psnr_denoised) > float(psnr_raw)
        assert float(ssim_denoised) > float(ssim_raw)


def test_no_frame_was_lost(shown: Shown) -> None:
    assert f"{10 + 10 + TURNS * 120} frames, 0 lost" in " ".join(shown.output.split())


def test_the_picture_is_one(shown: Shown) -> None:
    assert f"picture: {shown.data / 'before-after.png'}" in "".join(shown.output.split("\n"))
    picture = skimage.io.imread(shown.data / "before-after.png")
    height, width = picture.shape[:2]
    assert min(height, width) > 800
    assert picture[..., :3].std() > 20


def test_the_lines_to_paste_read_run_and_slices_back(shown: Shown) -> None:
    assert shown.pasted.returncode == 0, shown.pasted.stdout + shown.pasted.stderr
    assert re.search(r"JIT:XY:Denoised:ArrayData +\[", shown.pasted.stdout)
    assert "RAW success ['darks', 'flats', 'primary']" in shown.pasted.stdout
    assert "OURS ['XY', 'XZ', 'YZ', 'learning'] ('time', 'y', 'x')" in shown.pasted.stdout


@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_in_mid_scan_ends_everything(tmp_path: Path, times: int) -> None:
    demo = Command(tmp_path, "demo", "--turns", "50", "--data", "here")
    try:
        wait_for(lambda: list((demo.cwd / "here" / "frames").glob("*primary*.h5")), timeout_s=DONE_S, what="the scan")
    finally:
        status = demo.interrupt(times=times)
    assert status == 130, demo.output
    assert "stopping" in demo.output
    assert "Traceback" not in demo.output
    assert not running(tmp_path)
    assert all(path.is_relative_to(demo.cwd / "here") for path in written(tmp_path))


@pytest.mark.parametrize("name", ["demo", "sim"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_it_starts_ends_everything(tmp_path: Path, name: str, number: signal.Signals) -> None:
    command = Command(tmp_path, name, "--data", "here")
    try:
        wait_for(lambda: len(running(tmp_path)) > 1, what="the first process")
    finally:
        status = command.interrupt(number)
    assert status == 130, command.output
    assert "Traceback" not in command.output
    # It did not wait for everything to be up first.
    assert "Ctrl-C ends it" not in command.output
    assert not running(tmp_path)
    assert not (command.cwd / "here" / "settings.toml").exists(), "a console would look for what is gone"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_simulated_beamline_starts_and_ends(tmp_path: Path, number: signal.Signals) -> None:
    sim = Command(tmp_path, "sim", "--", "--rows", "16", "--columns", "20")
    try:
        sim.wait_until_shown("Ctrl-C ends it", 60.0)
        settings = sim.cwd / "jit-data" / "settings.toml"
        assert stat.S_IMODE(settings.stat().st_mode) == 0o600
        assert len(running(tmp_path)) == 2
        assert f"export BLUESKY_JIT_SETTINGS={settings}\nbluesky-jit serve\n" in sim.output
    finally:
        status = sim.interrupt(number)
    assert status == 0, sim.output
    assert "Traceback" not in sim.output
    assert not running(tmp_path)
    assert not settings.exists(), "a console would look for what is gone"
    assert all(path.is_relative_to(sim.cwd / "jit-data") for path in written(tmp_path))
