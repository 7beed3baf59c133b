"""The console, as a person has it: a real ipython in a terminal with the profile."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pexpect
import pytest
from servers import wait_for
from tiled.server import SimpleTiledServer

from bluesky_jit.cli.simulated import SimulatedBeamline

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

PROFILE = Path(__file__).parents[2] / "profile_collection"
START_S = 120
SCAN_S = 120


class Terminal:
    """Type into ipython and read what it shows, without colours."""

    def __init__(self, child: pexpect.spawn) -> None:
        self._child = child

    def expect(self, text: str, timeout_s: float = START_S) -> str:
        """Wait for a regular expression; return what was shown before and with it."""
        try:
            self._child.expect(text, timeout=timeout_s)
        except (pexpect.TIMEOUT, pexpect.EOF) as error:
            pytest.fail(f"{text!r} was not shown, but:\n{_plain(str(self._child.before))}\n{type(error).__name__}")
        return _plain(self._child.before + self._child.after)

    def ask(self, line: str, timeout_s: float = START_S) -> str:
        """Type a line and return what was shown up to the next prompt."""
        self._child.sendline(line)
        return self.expect(r"In \[\d+\]: ", timeout_s)

    def leave(self) -> None:
        self._child.sendline("exit()")
        self._child.expect(pexpect.EOF, timeout=START_S)
        self._child.wait()


@contextmanager
def console(folder: Path, *, own_epics: bool = True, **environment: str) -> Iterator[Terminal]:
    """Start ipython with a copy of the profile, so that history and logs stay out of the checkout.

    own_epics: with this test session's EPICS ports; else the profile finds PVs by its settings alone.
    """
    inherited = {name: value for name, value in os.environ.items() if own_epics or not name.startswith("EPICS_")}
    profile = folder / "profile"
    shutil.copytree(PROFILE, profile, ignore=shutil.ignore_patterns("log", "pid", "security", "db", "history*"))
    child = pexpect.spawn(
        sys.executable,
        ["-m", "IPython", f"--profile-dir={profile}", "--no-banner", "--simple-prompt", "--colors=NoColor"],
        cwd=folder,
        env=inherited | {"TERM": "dumb", "COLUMNS": "150", "HOME": str(folder)} | environment,  # type: ignore[arg-type]
        encoding="utf-8",
        dimensions=(50, 150),
        timeout=START_S,
    )
    try:
        yield Terminal(child)
    finally:
        child.close(force=True)


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_says_what_is_missing_and_works_all_the_same(tmp_path: Path, ca_repeater: None) -> None:
    with console(tmp_path, BLUESKY_JIT_BEAMLINE__CAMERA="NOBODY:DET:") as terminal:
        shown = terminal.expect(r"In \[1\]: ")
        assert "RE(tomo_scan(turns=5))" in shown
        assert "camera, stage, shutter, sample: no answer" in shown
        assert "bluesky-jit sim" in shown
        assert "bluesky-jit serve" in shown
        assert "Traceback" not in shown
        assert "'success'" in terminal.ask(
            "from ophyd.sim import det; RE(count([det]), lambda n, d: n == 'stop' and print([d['exit_status']]))"
        )
        terminal.leave()


def test_scans_and_finds_the_run_in_the_catalog(sim: Any, tmp_path: Path) -> None:
    with SimpleTiledServer(tmp_path / "tiled", api_key="secret", readable_storage=[sim.directory]) as server:
        settings = tmp_path / "settings.toml"
        settings.write_text(
            f"""
            [beamline]
            camera = "{sim.prefix}DET:"
            stage = "{sim.prefix}ROT"
            shutter = "{sim.prefix}SHUTTER"
            sample = "{sim.prefix}SAMPLE"
            [geometry]
            pixel_mm = 0.5
            [tiled]
            uri = "{server.uri.partition("?")[0]}"
            api_key = "secret"
            spill_directory = "{tmp_path / "spill"}"
            """
        )
        with console(tmp_path, BLUESKY_JIT_SETTINGS=str(settings)) as terminal:
            shown = terminal.expect(r"In \[1\]: ")
            assert "no answer" not in shown
            assert "catalog:" not in shown
            shown = terminal.ask("(uid,) = RE(tomo_scan(turns=1, angles_per_turn=24, darks=3, flats=4))", SCAN_S)
            assert "Traceback" not in shown
            recorded = "len(catalog) > 0 and 'stop' in catalog[-1].metadata"
            wait_for(lambda: "True" in terminal.ask(recorded), what="the run's record")
            assert "True" in terminal.ask("catalog[-1].start['uid'] == uid")
            assert "24, 32, 40" in terminal.ask("catalog[-1]['primary']['camera'].shape")
            assert "24" in terminal.ask("len(catalog[-1]['primary']['camera_angle'].read())")
            assert "0.5" in terminal.ask("catalog[-1].start['tomo']['pixel_mm']")
            assert "uint16" in terminal.ask("catalog[-1]['flats']['camera'].read().dtype")
            terminal.leave()


def test_the_slices_of_a_run_are_found_by_its_uid(tmp_path: Path) -> None:
    with SimulatedBeamline(tmp_path / "beamline", ioc_options=("--rows", "48", "--columns", "64")) as beamline:
        beamline.serve().wait_until_ready(START_S)
        with console(tmp_path, own_epics=False, BLUESKY_JIT_SETTINGS=str(beamline.settings_file)) as terminal:
            shown = terminal.expect(r"In \[1\]: ")
            assert "no answer" not in shown
            assert "not running" not in shown
            shown = terminal.ask("(uid,) = RE(tomo_scan(turns=4, angles_per_turn=60, exposure_s=0.02))", SCAN_S)
            assert "Traceback" not in shown
            terminal.ask("from bluesky_jit.archive import connect; from bluesky_jit.results import linked_run")
            recorded = "'stop' in linked_run(uid, connect(settings.tiled)).metadata"
            wait_for(lambda: "True" in terminal.ask(recorded), what="the linked run's record")
            assert "True" in terminal.ask("catalog[-1].start['uid'] == uid")
            assert "'XY'" in terminal.ask("found = results(uid); sorted(found)")
            # How good the network has become by then is no matter of this console: what was ready was denoised.
            terminal.ask("import numpy as np; xy = found['XY']; denoised = np.isfinite(xy.denoised).all(('y', 'x'))")
            assert "True" in terminal.ask("len(xy.raw) > 0 and bool(np.isfinite(xy.raw).all())")
            assert "True" in terminal.ask("bool((denoised == xy.ready).all())")
            terminal.leave()
